"""systemd's units, as data of this package, with the paths of an installation filled in. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config import values
from vhostcomm.config.address import CONTROL_NAME

SERVE: Final = "vhostcomm.service"
"""Serves all guests of a configuration file."""

SERVE_ONE: Final = "vhostcomm@.service"
"""Serves the guest of one UUID."""

RUN: Final = "vhostcomm-run@.service"
"""Launches the guest of one name."""

SOCKET: Final = "vhostcomm-guest@.socket"
"""Hands the socket of one guest, by its name, to `SERVE`."""

SOCKET_ONE: Final = "vhostcomm@.socket"
"""Hands the guest's socket to `SERVE_ONE`."""

NAMES: Final = (SERVE, SERVE_ONE, RUN, SOCKET, SOCKET_ONE)

RUNTIME: Final = Path("/run/vhostcomm")
"""The folder of `SERVE`; those of the others are beside it."""

EXECUTABLE: Final = "/usr/bin/vhostcomm"
CONFIG: Final = "/etc/vhostcomm/vhostcomm.toml"


_USER: Final = "vhost-run-%i"
"""The user of a launcher, where its guest's name allows that."""

_USER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
"""What systemd takes as the name of a user that it makes."""


def user(name: str, guest: str) -> str:
    """The user of a unit for one guest, which no other guest has.

    systemd's specifiers can't shorten a name. So the unit's text holds for all guests only where it has `%i`; where the
    instance is too long for a user's name, or has other characters, it holds for this guest alone.

    Args:
        name: the unit's, `SERVE_ONE` or `RUN`.
        guest: its instance.
    """
    if name == RUN and _USER_NAME.fullmatch(_USER.replace("%i", guest)):
        return _USER
    digest = hashlib.sha256(guest.encode()).digest()[:15]
    return f"vhost-{base64.b32encode(digest).decode().lower()}"


def text(name: str, *, guest: str = "", executable: str = EXECUTABLE, config: str = CONFIG) -> str:
    """A unit's text.

    Args:
        name: one of `NAMES`.
        guest: the instance of a service for one guest.
        executable: the absolute path of the console script.
        config: the absolute path of the configuration file, for those that read one.

    Raises:
        ValueError: there is no such unit, or a path can't stand in one.
    """
    if name not in NAMES:
        raise ValueError(f"there is no unit {name!r}; there are {', '.join(NAMES)}")
    found = files(__name__).joinpath(name).read_text(encoding="utf-8")
    found = found.replace("@EXECUTABLE@", _word(executable, program=True)).replace("@CONFIG@", _word(config))
    return found.replace("@USER@", user(name, guest))


def file(name: str, guest: str) -> str:
    """The file for a unit's text: the unit's own, or the instance's where the text holds for this guest alone."""
    return instance(name, guest) if name in {SERVE_ONE, RUN} and user(name, guest) != _USER else name


def running_executable() -> str:
    """The program that runs, as a unit needs it: the one file that has everything, or the console script beside Python."""
    if archive := getattr(__spec__.loader, "archive", ""):  # of a zipimporter
        return str(archive)
    beside = Path(sys.executable).with_name("vhostcomm")
    return str(beside) if beside.exists() else EXECUTABLE


def instance(name: str, guest: str) -> str:
    """The unit's name for a guest: of its name, or of its UUID where the unit is for one.

    Raises:
        ValueError: the unit is for no single guest, or this is no such name or UUID.
    """
    before, at, after = name.partition("@")
    if name not in NAMES or not at:
        raise ValueError(f"{name} is not for one guest")
    given = values.uuid_text(guest) if name in {SERVE_ONE, SOCKET_ONE} else values.name(guest)
    return f"{before}@{given}{after}"


@frozen
class Place:
    """Where a unit has what belongs to a guest.

    Args:
        service: the service that serves it, with its instance.
        runtime: the folder of that service.
        name: what its daemon calls the guest.
        sock: what QEMU connects to, where that is the unit's to say and not the configuration's.
    """

    service: str
    runtime: Path
    name: str
    sock: Path | None = None

    @property
    def control(self) -> Path:
        """The control surface, where nothing else is configured."""
        return self.runtime / CONTROL_NAME


def place(name: str, guest: str, uuid: str, *, runtime: Path = RUNTIME) -> Place:
    """Where a unit has a guest's socket and its daemon's control surface.

    Args:
        name: the unit's, of `NAMES`.
        guest: the guest's name.
        uuid: its UUID.
        runtime: the folder of `SERVE`.

    Raises:
        ValueError: there is no such unit, or this is no name or UUID of an instance.
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
    """A path as a word of ExecStart=: its specifiers and variables are none, and blanks don't end it."""
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{path!r}: a unit needs an absolute path, without control characters")
    shown = path.replace("%", "%%")
    if not program:  # systemd looks for variables in all words but the first
        shown = shown.replace("$", "$$")
    if re.search(r"[\s\"'\\;]", shown):
        shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return shown
