"""systemd's units, as data of this package, with the paths of an installation filled in. Pure."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from vhostcomm import values

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

EXECUTABLE: Final = "/usr/bin/vhostcomm"
CONFIG: Final = "/etc/vhostcomm/vhostcomm.toml"


def text(name: str, *, executable: str = EXECUTABLE, config: str = CONFIG) -> str:
    """A unit's text.

    Args:
        name: one of `NAMES`.
        executable: the absolute path of the console script.
        config: the absolute path of the configuration file, for those that read one.

    Raises:
        ValueError: there is no such unit, or a path can't stand in one.
    """
    if name not in NAMES:
        raise ValueError(f"there is no unit {name!r}; there are {', '.join(NAMES)}")
    found = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return found.replace("@EXECUTABLE@", _word(executable, program=True)).replace("@CONFIG@", _word(config))


def running_executable() -> str:
    """The console script of the installation that runs, as a unit needs it: the one beside its Python, if there is one."""
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
