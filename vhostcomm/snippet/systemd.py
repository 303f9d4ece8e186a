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
from vhostcomm.snippet.parts import Snippet, changed, with_lines
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
    paths = [each.absolute() for each in files]
    try:
        place = units.place(name, guest.name if guest else "", guest.identity.uuid if guest else "")
        found = units.text(name, guest=place.name, executable=executable, configs=tuple(map(str, paths)))
        saved = units.file(name, place.name)
        held = name in {units.SOCKET, units.SOCKET_ONE}
        socket = units.instance(name, place.name) if held else ""
    except ValueError as error:
        raise UsageError(str(error)) from None
    # systemd refuses to start a socket whose service is active.
    start = (
        f"systemctl stop {place.service} && systemctl enable --now {socket} && systemctl start {place.service}"
        if held
        else f"systemctl enable --now {place.service}"
    )
    save = with_lines(f"save it as /etc/systemd/system/{saved}, then:", f"systemctl daemon-reload && {start}")
    remarks = [save, *(_own(config, guest, name, place) if guest else ())]
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
            given = [*_variables(config, guest, but="uuid")]
            file = f"/etc/vhostcomm/{place.name}.env"
            yield with_lines(
                f"QEMU connects to {place.sock}; put settings into {file}{'' if given else ', such as'}:",
                *(given or [f"VHOSTCOMM_GUEST_SERIAL={guest.identity.serial}"]),
            )
            yield from _secret(config, file)
            if guest.name != place.name:
                yield f"that service names the guest {place.name}, not {guest.name}"
        case units.RUN:
            file, disks = f"/etc/vhostcomm/run-{guest.name}.env", f"/var/lib/vhostcomm-run-{guest.name}"
            yield with_lines(
                f"{file} has the machine and the settings, such as:", _run(guest), *_variables(config, guest)
            )
            yield from _secret(config, file)
            yield with_lines(f"put the disks into {disks}, with its owner:", f"chown --reference={disks}/ DISK")
        case units.SOCKET | units.SOCKET_ONE:
            yield (
                f"QEMU connects to {place.sock}, also while no daemon runs; to give libvirt's QEMU access, set "
                "SocketGroup=kvm and SocketMode=0660 in a drop-in of the socket"
            )
        case _:
            return


def _run(guest: GuestConfig) -> str:
    """Return the line of an environment file that has a launcher's flags.

    Raises:
        UsageError: systemd would read the socket's path differently.
    """
    words = ["--boot", "synoboot.img", "--system", "system.img"]
    if sock := guest.sources.get("sock", "").partition("--sock ")[2]:
        if re.search(r"[\"'\\]", sock):
            raise UsageError(
                f"--sock {sock}: {units.RUN} needs a path without quotes and backslashes: choose another one"
            )
        words = ["--sock", sock, *words]
    return f'RUN="{shlex.join(words)}"'


def _variables(config: Config, guest: GuestConfig, *, but: str = "") -> Iterator[str]:
    """Yield the lines of an environment file that has the guest's settings, except one and secrets."""
    for each, value in changed(config, guest):
        kind = each.metadata["kind"]
        if each.name != but and kind is not values.TOKEN:
            yield f"{variable(each)}={shlex.quote(str(kind.show(value)))}"


def _secret(config: Config, file: str) -> Iterator[str]:
    """Explain where the token belongs, which no remark shows."""
    if config.service.control_token:
        yield f"set VHOSTCOMM_CONTROL_TOKEN in {file} yourself"


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
    return with_lines(
        f"{what}: make the directory for a permanent user, with the last line in a drop-in:",
        "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin vhostcomm",
        f"install -d -o vhostcomm -m 0710 {shlex.quote(str(folder))}",
        f"ReadWritePaths={shown}",
    )
