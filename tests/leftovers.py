"""Find what tests have left behind: processes with their mark, and mounts in their folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MARK: Final = "TESTS_OF_VHOSTCOMM"
"""Environment variable of all processes of a test session; its value is the session's name, SESSION or OUTER/SESSION."""


def processes_marked(session: str) -> dict[int, str]:
    """Return the processes with the mark of that session or an inner one, except this process, with their commands."""
    wanted = f"{MARK}={session}/".encode()
    found = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and int(each.name) != os.getpid():
            try:
                environment = (each / "environ").read_bytes().split(b"\0")
                command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # the process has ended, or belongs to another user
                continue
            if any((variable + b"/").startswith(wanted) for variable in environment):
                found[int(each.name)] = command
    return found


def mounts_below(*folders: Path) -> list[str]:
    """Return the mounts in these folders, in this process's namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in lines]
    return [place for place in places if any(Path(place).is_relative_to(folder) for folder in folders)]
