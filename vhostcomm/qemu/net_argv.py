"""Build QEMU's arguments for the network of the card."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from vhostcomm.qemu.argument_format import options
from vhostcomm.qemu.machine import BridgeNet, Machine, Net, PasstNet, TapNet, UserNet

NETDEV: Final = "hostnet0"
"""The id of the network."""


def netdev(net: Net, guest: str) -> Iterator[str]:
    """Build the arguments for the network of the card of a guest, by its name."""
    match net:
        case UserNet(forwards=forwards):
            rules = [("hostfwd", f"{f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}") for f in forwards]
            yield from ("-netdev", options("user", [("id", NETDEV), *rules]))
        case TapNet(interface=interface, vhost=vhost, queues=count):
            # QEMU would run these scripts as root, with control of the host's network.
            settings = {"id": NETDEV, "ifname": interface, "script": "no", "downscript": "no"}
            settings |= {"vhost": "on"} if vhost else {}
            yield from ("-netdev", options("tap", settings | ({"queues": str(count)} if count and count > 1 else {})))
        case BridgeNet(bridge=bridge):
            yield from ("-netdev", options("bridge", {"id": NETDEV, "br": bridge}))
        case PasstNet():
            yield from ("-netdev", stream({"type": "unix", "path": passt_socket(guest)}))
        case _ as never:
            assert_never(never)


def stream(address: Mapping[str, str]) -> str:
    """Format a network that is a connection to passt at an address of QEMU's type SocketAddress."""
    settings = {"id": NETDEV, "server": "off"} | {f"addr.{name}": value for name, value in address.items()}
    return options("stream", settings)


def passt(net: PasstNet) -> list[str]:
    """Build passt's command, except for its connection to QEMU. The guest's network is that of QEMU's user network."""
    words = ["passt", "--quiet", "--address", "10.0.2.15", "--netmask", "255.255.255.0", "--gateway", "10.0.2.2"]
    for forward in net.forwards:
        words += [f"--{forward.protocol}-ports", f"{forward.host_address}/{forward.host_port}:{forward.guest_port}"]
    return words


def after_passt(machine: Machine, command: str) -> str:
    """Put passt's command in front of QEMU's, for a shell, if the machine needs passt. passt returns once it listens."""
    if not isinstance(machine.net, PasstNet):
        return command
    return f"{shlex.join([*passt(machine.net), '--one-off', '--socket', passt_socket(machine.name)])} && \\\n{command}"


def passt_socket(name: str) -> str:
    """Return where passt listens for the QEMU of a guest, in the commands to paste. As root, passt becomes nobody."""
    return f"/tmp/vhostcomm-{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:64]}.passt"  # noqa: S108


def queues(net: Net) -> dict[str, str]:
    """Return the card's properties for several queues: two interrupts for each queue and two more."""
    if not isinstance(net, TapNet) or not net.queues or net.queues == 1:
        return {}
    return {"mq": "on", "vectors": str(2 * net.queues + 2)}
