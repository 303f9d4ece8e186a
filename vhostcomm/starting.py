"""Whether a daemon is just starting, so that its clients wait a moment for its sockets instead of failing.

A pasted `vhostcomm serve … &` and the command behind it start at the same time, and before the daemon has its sockets
nothing on disk says that it will. The table of processes does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 10.0
"""Seconds of a daemon's age after which it isn't waited for. A start takes half a second, and several on a busy machine."""

START_INTERVAL: Final = 0.05
"""Seconds between two looks."""

_DAEMONS: Final = {"vdsm_run", "vdsm_run.py", "qemu-host"}
_RUNTIME: Final = {
    f"{name}={os.environ[name]}" for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR") if name in os.environ
}
"""Of our environment: a daemon that was started beside us has the same. Other daemons aren't waited for."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


def attempts() -> Iterator[None]:
    """An attempt now, and again while a daemon is starting, for at most `START_TIMEOUT` seconds.

    There is one attempt alone where no daemon was started within the last `START_TIMEOUT` seconds.
    """
    end = time.monotonic() + START_TIMEOUT
    while is_starting() and time.monotonic() < end:
        yield
        time.sleep(START_INTERVAL)
    yield


def is_starting() -> bool:
    """Whether a daemon with our runtime directory is younger than `START_TIMEOUT`; False where processes can't be seen."""
    try:
        now = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return False
    return any(now - since < START_TIMEOUT for since in _daemons())


def _daemons() -> Iterator[float]:
    """When each daemon was started, in seconds since the boot."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if is_daemon(_words(folder / "cmdline")) and {*_words(folder / "environ")} >= _RUNTIME:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(fields[19]) / _TICK
        except OSError:  # it has ended
            continue


def _words(file: Path) -> list[str]:
    return file.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]


def is_daemon(command: Sequence[str]) -> bool:
    """Whether a command line is one of `serve`, `run` or `qemu-host`; Python or sudo may stand in front."""
    for place, word in enumerate(command[:-1] if len(command) > 1 else command):
        name = Path(word).name
        if name in _DAEMONS:
            return True
        if name == "vhostcomm":
            return command[place + 1 : place + 2] in (["serve"], ["run"])
    return False
