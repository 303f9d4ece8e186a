"""systemd units as data of this package, completed with the paths of an installation. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config import values

SERVE: Final = "vhostcomm.service"
"""Serves all guests of a configuration file."""

SERVE_ONE: Final = "vhostcomm@.service"
"""Serves one guest by its UUID."""

RUN: Final = "vhostcomm-run@.service"
"""Launches one guest by its name."""

SOCKET: Final = "vhostcomm-guest@.socket"
"""Passes the socket of one guest, by its name, to `SERVE`."""

SOCKET_ONE: Final = "vhostcomm@.socket"
"""Passes the guest's socket to `SERVE_ONE`."""

NAMES: Final = (SERVE, SERVE_ONE, RUN, SOCKET, SOCKET_ONE)
BY_UUID: Final = {SERVE_ONE, SOCKET_ONE}
"""Units whose instance is a guest's UUID."""

RUNTIME: Final = Path("/run/vhostcomm")
"""The runtime directory of `SERVE`; those of the other units are beside it."""

EXECUTABLE: Final = "/usr/bin/vhostcomm"
CONFIG: Final = "/etc/vhostcomm/vhostcomm.toml"


_USER: Final = "vhost-run-%i"
"""The user of a launcher, if the guest's name allows that."""

_USER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
"""The names that systemd accepts for a user that it creates."""


def user(name: str, guest: str) -> str:
    """Return the user of a unit for one guest, which no other guest shares.

    systemd's specifiers can't shorten a name. So the unit's text is valid for all guests only if the user has `%i`.
    An instance that is too long for a user's name, or has other characters, needs its own text.

    Args:
        name: of the unit, `SERVE_ONE` or `RUN`.
        guest: its instance.
    """
    if name == RUN and _USER_NAME.fullmatch(_USER.replace("%i", guest)):
        return _USER
    digest = hashlib.sha256(guest.encode()).digest()[:15]
    return f"vhost-{base64.b32encode(digest).decode().lower()}"


def text(name: str, *, guest: str = "", executable: str = EXECUTABLE, configs: Sequence[str] = ()) -> str:
    """Return the text of a unit.

    Args:
        name: one of `NAMES`.
        guest: the instance of a service for one guest.
        executable: the absolute path of the console script.
        configs: the absolute paths of the configuration, for units that read one; `CONFIG` by default.

    Raises:
        ValueError: there is no such unit, or a path is unusable in one.
    """
    if name not in NAMES:
        raise ValueError(f"there is no unit {name!r}; there are {', '.join(NAMES)}")
    words = " ".join(f"--config {_word(each)}" for each in configs or (CONFIG,))
    found = files(__name__).joinpath(name).read_text(encoding="utf-8")
    found = found.replace("@EXECUTABLE@", _word(executable, program=True)).replace("@CONFIG@", words)
    return found.replace("@USER@", user(name, guest))


def file(name: str, guest: str) -> str:
    """Return the file name for a unit's text: the instance's if the text is valid only for this guest."""
    return instance(name, guest) if name in {SERVE_ONE, RUN} and user(name, guest) != _USER else name


def running_executable() -> str:
    """Return an absolute path of the program that runs: the one-file archive, or the console script.

    A unit or script starts it later, with another PATH. The console script is the one that was started, else the one beside
    Python (`python -m vhostcomm`), else that in PATH, else `EXECUTABLE`.
    """
    main = sys.modules["__main__"].__spec__  # of the archive's own path; it imports this package by a descriptor's
    if archive := getattr(main and main.loader, "archive", ""):  # of a zipimporter
        return str(Path(archive))
    started = Path(sys.argv[0])
    for script in (started, Path(sys.executable).with_name("vhostcomm")):
        if script.name == "vhostcomm" and (found := shutil.which(script.absolute())):
            return str(found)
    return str(Path(shutil.which("vhostcomm") or EXECUTABLE).absolute())


def instance(name: str, guest: str) -> str:
    """Return the unit's name for a guest, with the guest's name or UUID as its instance.

    Raises:
        ValueError: the unit is not for one guest, or the name or UUID is invalid.
    """
    before, at, after = name.partition("@")
    if name not in NAMES or not at:
        raise ValueError(f"{name} is not for one guest")
    given = values.uuid_text(guest) if name in BY_UUID else values.name(guest)
    return f"{before}@{given}{after}"


@frozen
class Place:
    """The paths of a guest that a unit serves.

    Args:
        service: the service, with its instance.
        runtime: the runtime directory of that service.
        name: the daemon's name for the guest.
        sock: the socket for QEMU, if the unit determines it and not the configuration.
    """

    service: str
    runtime: Path
    name: str
    sock: Path | None = None


def place(name: str, guest: str, uuid: str, *, runtime: Path = RUNTIME) -> Place:
    """Return the paths of a guest that a unit serves.

    Args:
        name: of the unit, of `NAMES`.
        guest: the guest's name.
        uuid: its UUID.
        runtime: the runtime directory of `SERVE`.

    Raises:
        ValueError: there is no such unit, or the name or UUID is invalid.
    """
    match name:
        case "vhostcomm.service":
            return Place(SERVE, runtime, guest)
        case "vhostcomm-guest@.socket":
            values.name(guest)
            return Place(SERVE, runtime, guest, runtime.with_name(f"{runtime.name}-sockets") / guest)
        case "vhostcomm@.service" | "vhostcomm@.socket":
            own = runtime.with_name(f"{runtime.name}-{uuid}")
            held = runtime.with_name(f"{runtime.name}-sockets") / uuid
            return Place(instance(SERVE_ONE, uuid), own, uuid, held if name == SOCKET_ONE else own / uuid)
        case "vhostcomm-run@.service":
            return Place(instance(RUN, guest), runtime.with_name(f"{runtime.name}-run-{guest}"), guest)
        case _:
            raise ValueError(f"there is no unit {name!r}; there are {', '.join(NAMES)}")


def _word(path: str, *, program: bool = False) -> str:
    """Quote a path as a word of ExecStart=, so that systemd expands nothing in it and blanks don't end it."""
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{path!r}: a unit needs an absolute path, without control characters")
    shown = path.replace("%", "%%")
    if not program:  # systemd looks for variables in all words but the first
        shown = shown.replace("$", "$$")
    if re.search(r"[\s\"'\\;]", shown):
        shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return shown
