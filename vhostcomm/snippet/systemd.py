"""systemd's unit that serves or launches a guest, with what is to be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vhostcomm import units
from vhostcomm.address import Connect, Listen, ListenTcp
from vhostcomm.config import GuestConfig
from vhostcomm.errors import UsageError
from vhostcomm.snippet.parts import Snippet

RUNTIME: Final = Path("/run/vhostcomm")
"""The folder for sockets that the unit of all guests has."""


def unit(guest: GuestConfig, name: str, *, executable: str, config: Path | None) -> Snippet:
    """A unit, to save as a file.

    Args:
        guest: whose.
        name: the unit's, of `units.NAMES`.
        executable: the absolute path of the console script.
        config: the configuration file; needed by the unit of all guests.

    Raises:
        UsageError: the unit can't be for this guest.
    """
    if name in {units.SERVE, units.SOCKET} and config is None:
        raise UsageError(f"{name} is of the guests of a file: give it with --config, or take --unit {units.SERVE_ONE}")
    try:
        found = units.text(name, executable=executable, config=str((config or Path(units.CONFIG)).absolute()))
        who = guest.identity.uuid if name in {units.SERVE_ONE, units.SOCKET_ONE} else guest.name
        instance = name if name == units.SERVE else units.instance(name, who)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Snippet(
        found.rstrip(),
        (
            f"save it as /etc/systemd/system/{name}, then: systemctl daemon-reload && systemctl enable --now {instance}",
            *filter(None, [_remark(guest, name)]),
        ),
    )


def _remark(guest: GuestConfig, name: str) -> str:
    """What the unit needs for the guest to be served as it is configured."""
    uuid, address = guest.identity.uuid, guest.address
    if name == units.SERVE_ONE:
        return (
            f"QEMU connects to /run/vhostcomm-{uuid}/{uuid}; "
            f"/etc/vhostcomm/{uuid}.env has the rest, such as VHOSTCOMM_GUEST_SERIAL={guest.identity.serial}"
        )
    if name == units.RUN:
        return (
            f"/etc/vhostcomm/run-{guest.name}.env has the machine, such as "
            f'RUN="--boot synoboot.img --system system.img"; disks are in /var/lib/vhostcomm-run-{guest.name}'
        )
    if name in {units.SOCKET, units.SOCKET_ONE}:
        who = uuid if name == units.SOCKET_ONE else guest.name
        return f"QEMU connects to /run/vhostcomm-sockets/{who}, also while no daemon runs"
    if isinstance(address, ListenTcp):
        return "the guest's socket is TCP, which the unit takes away: PrivateNetwork=no and more in a drop-in; docs/systemd.md"
    if isinstance(address, Listen | Connect) and RUNTIME not in address.path.parents:
        return (
            f"the guest's socket is not below {RUNTIME}: ReadWritePaths={address.path.parent} in a drop-in, "
            "for a folder that is there before the service"
        )
    return ""
