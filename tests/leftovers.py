"""What tests may have left behind: processes that bear their mark, and mounts in their folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MARK: Final = "TESTS_OF_VHOSTCOMM"
"""Environment variable of all that a session of tests starts; its value names the session, SESSION or OUTER/SESSION."""


def processes_marked(session: str) -> dict[int, str]:
    """The processes with the mark of that session, or of one below it, but for this one, and their commands."""
    wanted = f"{MARK}={session}/".encode()
    found = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and int(each.name) != os.getpid():
            try:
                environment = (each / "environ").read_bytes().split(b"\0")
                command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended, or is another user's
                continue
            if any((variable + b"/").startswith(wanted) for variable in environment):
                found[int(each.name)] = command
    return found


def mounts_below(*folders: Path) -> list[str]:
    """The mounts of this process's namespace in any of these folders."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in lines]
    return [place for place in places if any(Path(place).is_relative_to(folder) for folder in folders)]
