"""A compose file for a container that serves a guest; the guest's QEMU runs in another container."""

from __future__ import annotations

import json
from typing import Final

from vhostcomm.config.identity import flag_of
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.config.reading import variable
from vhostcomm.qemu.argv import vchannel
from vhostcomm.qemu.machine import AnyVchannel, TcpVchannel, Vchannel
from vhostcomm.snippet.parts import Snippet, Spelling, changed, channel_of

FOLDER: Final = "/run/vhostcomm"
"""The directory of the sockets, in both containers."""

OF_THIS_HOST: Final = frozenset(
    {
        "control",
        "control_ca",
        "control_cert",
        "control_key",
        "control_token",
        "qemu_host_api",
        "record",
        "socket_group",
        "web",
    }
)
"""Settings that refer to the machine that they are configured on, or contain a secret: not for a container."""


def compose(config: Config, guest: GuestConfig, spelling: Spelling) -> Snippet:
    """Make the compose file.

    Args:
        config: the host's identity and the daemon's settings.
        guest: the guest to serve.
        spelling: for the QEMU in the other container.

    Raises:
        UsageError: QEMU can't connect to the guest's address.
    """
    sock, channel = _inside(guest)
    words = ["…", *vchannel(channel, spelling.reconnects)]
    # Without a runtime directory, a user other than root would have no path for the control surface.
    environment: dict[str, object] = {"RUNTIME_DIRECTORY": FOLDER}
    left_out = []
    for each, value in changed(config, guest):
        if each.name in OF_THIS_HOST:
            left_out.append(flag_of(each))
        else:
            environment[variable(each)] = each.metadata["kind"].show(value)
    text = _FILE.format(
        name=guest.name,
        folder=FOLDER,
        command=_yaml(["serve", "--sock", f"{guest.name}={sock}"]),
        environment="\n".join(f"      {key}: {_yaml(value)}" for key, value in environment.items()),
        user=_AS_QEMU if isinstance(channel, Vchannel) and channel.server else _AS_ITSELF,
        network=f'expose: ["{channel.port}"]' if isinstance(channel, TcpVchannel) else _NO_NETWORK,
        check=_yaml(["CMD", "vhostcomm", "info", guest.name]),
        why=spelling.why,
        arguments="\n".join(f"  #     - {_yaml(word)}" for word in words),
    )
    remarks = (f"left out, since they belong to this host or are secret: {', '.join(left_out)}",) if left_out else ()
    return Snippet(text, remarks)


_AS_ITSELF: Final = 'user: "900:900" # the image\'s user; QEMU as root can use its socket'
_AS_QEMU: Final = 'user: "0:0" # QEMU creates the socket: use the user of its container'
_NO_NETWORK: Final = 'network_mode: "none" # the channel is a unix socket'

_FILE: Final = """\
# The guest {name}, served from a container; its QEMU runs in another one. Checked against the schema of compose files,
# and started with Docker and Podman. Build the image with: docker build -f Containerfile -t vhostcomm .
services:
  vhostcomm:
    image: vhostcomm
    {user}
    entrypoint: ["vhostcomm"]
    command: {command}
    environment:
{environment}
    volumes:
      - vhostcomm:{folder}
    {network}
    healthcheck:
      # Unhealthy as in GET /healthz: QEMU isn't connected, or the guest isn't up or has no address yet.
      # docker inspect shows which.
      test: {check}
      interval: 30s
      timeout: 25s
      start_period: 5m
    restart: unless-stopped

  # The container with the guest's QEMU, {why}.
  # Do not let it wait until vhostcomm is healthy: vhostcomm is healthy only while this QEMU runs.
  # qemu:
  #   image: YOURS
  #   depends_on: [vhostcomm]
  #   volumes:
  #     - vhostcomm:{folder}
  #   command:
{arguments}

volumes:
  vhostcomm:"""


def _inside(guest: GuestConfig) -> tuple[str, AnyVchannel]:
    """Return the guest's address inside the containers: for vhostcomm, and for QEMU."""
    match channel_of(guest):
        case Vchannel(path=path, server=server):
            place = f"{FOLDER}/{path.rpartition('/')[2]}"
            return f"connect:{place}" if server else place, Vchannel(place, server=server)
        case TcpVchannel(port=port):
            return f"tcp:0.0.0.0:{port}", TcpVchannel("vhostcomm", port)


def _yaml(value: object) -> str:
    """Format a value as YAML, of which JSON is a subset. Compose needs dollars doubled."""
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")
