"""The systemd unit that serves or launches a guest, with the commands that install it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from vhostcomm.config import values
from vhostcomm.config.address import Connect, Listen, ListenTcp
from vhostcomm.config.http_address import TLS, parse_api
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.config.reading import variable
from vhostcomm.errors import UsageError
from vhostcomm.snippet.parts import Snippet, changed
from vhostcomm.systemd import units

LOGS: Final = Path("/var/log/vhostcomm")
"""The directory where the unit of all guests may write recordings."""

_HIDDEN: Final = {
    "/home": "ProtectHome=",
    "/root": "ProtectHome=",
    "/run/user": "ProtectHome=",
    "/tmp": "PrivateTmp=",  # noqa: S108 - nothing is created there
    "/var/tmp": "PrivateTmp=",  # noqa: S108 - as above
}
"""Directories that a unit hides from its service, with the setting that hides them."""


def unit(config: Config, guest: GuestConfig | None, name: str, *, executable: str, files: Sequence[Path]) -> Snippet:
    """Make a unit file.

    Args:
        config: the daemon's settings.
        guest: the guest; None for the unit of all guests.
        name: the unit's name, of `units.NAMES`.
        executable: the absolute path of the console script.
        files: the configuration's files and directories; required for the unit of all guests.

    Raises:
        UsageError: the unit can't serve this guest.
    """
    if name in {units.SERVE, units.SOCKET} and not files:
        raise UsageError(f"{name} serves the guests of a file: give it with --config, or use --unit {units.SERVE_ONE}")
    paths = [each.absolute() for each in files]
    try:
        place = units.place(name, guest.name if guest else "", guest.identity.uuid if guest else "")
        found = units.text(name, guest=place.name, executable=executable, configs=tuple(map(str, paths)))
        saved = units.file(name, place.name)
        held = name in {units.SOCKET, units.SOCKET_ONE}
        socket = units.instance(name, place.name) if held else ""
    except ValueError as error:
        raise UsageError(str(error)) from None
    save = f"save it as /etc/systemd/system/{saved}, then: systemctl daemon-reload && "
    # systemd refuses to start a socket whose service is active.
    start = (
        f"systemctl stop {place.service} && systemctl enable --now {socket} && systemctl start {place.service}"
        if held
        else f"systemctl enable --now {place.service}"
    )
    remarks = [save + start, *(_own(config, guest, name, place) if guest else ())]
    if not held:
        remarks += _unseen("the program", Path(executable))
    if name == units.SERVE:
        for path in paths:
            remarks += _unseen("the configuration", path)
        for each in config.guests:
            remarks += _address(each)
        for folder in config.watch:
            remarks += _unseen("the watched directory", folder) or [_let_in(f"the sockets in {folder}")]
    if name in {units.SERVE, units.SERVE_ONE}:
        remarks += _service(config, name, place)
    return Snippet(found.rstrip(), tuple(remarks))


def _own(config: Config, guest: GuestConfig, name: str, place: units.Place) -> Iterator[str]:
    """Explain the paths of the guest's socket and settings, if the unit chooses them."""
    match name:
        case units.SERVE_ONE:
            given = " ".join(_variables(config, guest, but="uuid"))
            yield (
                f"QEMU connects to {place.sock}; put settings into /etc/vhostcomm/{place.name}.env"
                f"{f': {given}' if given else f', such as VHOSTCOMM_GUEST_SERIAL={guest.identity.serial}'}"
            )
            if guest.name != place.name:
                yield f"that service names the guest {place.name}, not {guest.name}"
        case units.RUN:
            sock = guest.sources.get("sock", "").partition("--sock ")[2]
            given = " ".join(_variables(config, guest))
            yield (
                f"/etc/vhostcomm/run-{guest.name}.env has the machine, such as "
                f'RUN="{f"--sock {sock} " if sock else ""}--boot synoboot.img --system system.img"'
                f"{f', and the settings {given}' if given else ''}; put the disks into "
                f"/var/lib/vhostcomm-run-{guest.name}, with its owner: "
                f"chown --reference=/var/lib/vhostcomm-run-{guest.name}/ DISK"
            )
        case units.SOCKET | units.SOCKET_ONE:
            yield (
                f"QEMU connects to {place.sock}, also while no daemon runs; to give libvirt's QEMU access, set "
                "SocketGroup=kvm and SocketMode=0660 in a drop-in of the socket"
            )
        case _:
            return


def _variables(config: Config, guest: GuestConfig, *, but: str = "") -> Iterator[str]:
    """Yield the lines of an environment file that has the guest's settings, except one. Secrets are hidden."""
    for each, value in changed(config, guest):
        if each.name != but:
            kind = each.metadata["kind"]
            yield f"{variable(each)}={'…' if kind is values.TOKEN else shlex.quote(str(kind.show(value)))}"


def _address(guest: GuestConfig) -> list[str]:
    """Explain what the service needs for a socket at the configured path."""
    match guest.address:
        case ListenTcp():
            return [_tcp(f"the socket of {guest.name}")]
        case Connect(path):
            what = f"QEMU's socket of {guest.name}, {path},"
            return _unseen(what, path) or [_let_in(what.rstrip(","))]
        case Listen(path) if units.RUNTIME not in path.parents:
            what = f"the socket of {guest.name}, {path},"
            return _unseen(what, path) or [_writable(f"{what} is not below {units.RUNTIME}", path.parent)]
    return []


def _service(config: Config, name: str, place: units.Place) -> Iterator[str]:
    """Explain what the service needs for the settings of the configuration."""
    service = config.service
    if service.socket_group:
        yield (
            f"socket_group = {service.socket_group}: the service's user can't change a file's group; "
            f"set Group={service.socket_group} in a drop-in instead"
        )
    if service.control.startswith("tcp:"):
        yield _tcp("the control surface")
    if service.control.startswith(TLS):
        yield _tcp("the control surface") + ", with the clients' addresses too in IPAddressAllow="
        yield f"the key {service.control_key} must be readable: owned by root, mode 0640, its group as SupplementaryGroups="
    if service.web:
        yield _tcp("web")
    if service.qemu_host_api and isinstance(parse_api(service.qemu_host_api), ListenTcp):
        yield _tcp("qemu_host_api")
    if not service.record:
        return
    folder = Path(service.record).absolute().parent
    if name == units.SERVE_ONE:
        if folder != LOGS / place.name:
            yield (
                f"recordings in {folder}: no access for the unit; LogsDirectory=vhostcomm/{place.name} in a drop-in "
                f"creates {LOGS}/{place.name} for them"
            )
    elif folder != LOGS and LOGS not in folder.parents:
        yield from _unseen("the recording", folder) or [_writable(f"recordings are not in {LOGS}", folder)]


def _unseen(what: str, path: Path) -> list[str]:
    for folder, why in _HIDDEN.items():
        if Path(folder) in (path, *path.parents):
            return [
                f"{what} is in {folder}, which the service can't see ({why}): move it elsewhere, such as /opt or /srv"
            ]
    return []


def _tcp(what: str) -> str:
    return f"{what} uses TCP, which the unit denies: PrivateNetwork=no and more in a drop-in; docs/systemd.md"


def _let_in(what: str) -> str:
    return (
        f"{what} must be accessible to the service's user, which systemd creates at the start: use mode 0660, and its "
        "group as Group= in a drop-in"
    )


def _writable(what: str, folder: Path) -> str:
    """Explain how to make a directory writable. A dynamic user could not own it beforehand."""
    shown = "-" + str(folder).replace("%", "%%")
    if re.search(r"[\s\"'\\]", shown):
        shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return (
        f"{what}: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin vhostcomm; "
        f"install -d -o vhostcomm -m 0710 {shlex.quote(str(folder))}; ReadWritePaths={shown} in a drop-in"
    )
