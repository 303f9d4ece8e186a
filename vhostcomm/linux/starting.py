"""Find out whether a daemon is just starting, so that its clients wait a moment for its sockets instead of failing.

A pasted `vhostcomm serve … &` starts at the same time as the command after it. Before the daemon has created its
sockets, nothing on disk shows that it will. The process table does.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 10.0
"""Maximum age of a daemon to wait for, in seconds. A start takes half a second, and several on a busy machine."""

EXEC_TIMEOUT: Final = 1.0
"""Maximum age of a shell's child to wait for until it executes its program, which may be a daemon, in seconds."""

START_INTERVAL: Final = 0.05
"""Seconds between two attempts where no event announces success: with TCP, or without inotify."""

_DAEMONS: Final = {"vdsm_run", "vdsm_run.py", "qemu-host"}
_RUNTIME: Final = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")
"""Variables of our environment that a daemon started beside us shares. Clients ignore daemons with other values."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


def attempts(*folders: Path) -> Iterator[None]:
    """Yield for each attempt: one now, and more while a daemon is starting, for at most `START_TIMEOUT` seconds.

    The next attempt follows a change in a directory, or the end of such a daemon. If no daemon was started within the
    last `START_TIMEOUT` seconds, there is only one attempt. Processes are looked at only after it: a host has thousands.

    Args:
        folders: where the daemon's sockets may appear; none if they can't be watched.
    """
    yield
    end = time.monotonic() + START_TIMEOUT
    waited = False
    while (young := dict(_young_daemons())) and (left := end - time.monotonic()) > 0:
        with _changes(folders, young) as wait:  # begins before the attempt, so that no change is missed
            yield
            wait(min(left, max(young.values())))
        waited = True
    if waited:
        yield


def is_starting() -> bool:
    """Return whether a daemon with our runtime directory is just starting; False if processes are invisible."""
    return any(True for _ in _young_daemons())


@contextmanager
def _changes(folders: Sequence[Path], pids: Iterable[int]) -> Iterator[Callable[[float], object]]:
    """Yield a function that waits some seconds for a change in a directory, or for the end of a process, since now."""
    poller, limit = select.poll(), inf
    with ExitStack() as stack:
        if not _watch(folders, poller, stack):
            limit = START_INTERVAL
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except OSError:  # it has ended, or no descriptor is left
                limit = START_INTERVAL
            else:
                stack.callback(os.close, fd)
                poller.register(fd, select.POLLIN)
        yield lambda seconds: poller.poll(min(seconds, limit) * 1000)


def _watch(folders: Sequence[Path], poller: select.poll, stack: ExitStack) -> bool:
    """Watch the directories, or the nearest parents of those that don't exist yet. Return False if that fails."""
    from inotify_simple import INotify, flags  # only a wait needs it

    try:
        inotify = stack.enter_context(INotify())
        for folder in folders:
            there = next(each for each in (folder, *folder.parents) if each.is_dir())
            inotify.add_watch(there, flags.CREATE | flags.MOVED_TO | flags.ATTRIB)
    except OSError:
        return False
    poller.register(inotify.fileno(), select.POLLIN)
    return bool(folders)


def _young_daemons() -> Iterator[tuple[int, float]]:
    """Yield each daemon that is just starting: its pid, and the seconds until it counts as started.

    A copy of a shell may become one. No event announces that, so its seconds are those until the next attempt.
    """
    try:
        now = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return
    runtime = {f"{name}={os.environ[name]}" for name in _RUNTIME if name in os.environ}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, parent, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
            age = now - int(fields[17]) / _TICK
            if age >= START_TIMEOUT or not {*_words(folder / "environ")} >= runtime:
                continue
            words = _words(folder / "cmdline")
            if is_daemon(words):
                yield int(folder.name), START_TIMEOUT - age
            elif age < EXEC_TIMEOUT and words and words == _words(folder.with_name(parent) / "cmdline"):
                yield int(folder.name), START_INTERVAL
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
