"""Find out whether a daemon is just starting, so that its clients wait a moment for its sockets instead of failing.

A pasted `vhostcomm serve … &` starts at the same time as the command after it. Before the daemon has created its
sockets, nothing on disk shows that it will. The process table does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 10.0
"""Maximum age of a daemon to wait for, in seconds. A start takes half a second, and several on a busy machine."""

START_INTERVAL: Final = 0.05
"""Seconds between two attempts."""

_DAEMONS: Final = {"vdsm_run", "vdsm_run.py", "qemu-host"}
_RUNTIME: Final = {
    f"{name}={os.environ[name]}" for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR") if name in os.environ
}
"""Variables of our environment that a daemon started beside us shares. Clients ignore daemons with other values."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


def attempts() -> Iterator[None]:
    """Yield for each attempt: one now, and more while a daemon is starting, for at most `START_TIMEOUT` seconds.

    If no daemon was started within the last `START_TIMEOUT` seconds, there is only one attempt.
    """
    end = time.monotonic() + START_TIMEOUT
    while is_starting() and time.monotonic() < end:
        yield
        time.sleep(START_INTERVAL)
    yield


def is_starting() -> bool:
    """Return whether a daemon with our runtime directory is just starting; False if processes are invisible."""
    try:
        now = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    return any(now - since < START_TIMEOUT for since in _daemons())


def _daemons() -> Iterator[float]:
    """Yield when each daemon was started, in seconds since the boot."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if is_daemon(_words(folder / "cmdline")) and {*_words(folder / "environ")} >= _RUNTIME:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(fields[19]) / _TICK
        except OSError:  # it ended meanwhile
            continue


def _words(file: Path) -> list[str]:
    return file.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]


def is_daemon(command: Sequence[str]) -> bool:
    """Return whether a command line is `serve`, `run` or `qemu-host`, also after words such as Python or sudo."""
    for place, word in enumerate(command[:-1] if len(command) > 1 else command):
        name = Path(word).name
        if name in _DAEMONS:
            return True
        if name == "vhostcomm":
            return command[place + 1 : place + 2] in (["serve"], ["run"])
    return False
