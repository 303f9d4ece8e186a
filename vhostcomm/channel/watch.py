"""A folder in which sockets of QEMUs appear and vanish, as the genuine host has one."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from inotify_simple import INotify, flags

from vhostcomm.errors import ServeError

_CHANGES = flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.MOVED_FROM | flags.ATTRIB
_GONE = flags.DELETE_SELF | flags.MOVE_SELF


async def sockets_in(folder: Path) -> AsyncIterator[dict[str, Path]]:
    """The sockets in a folder by their names: now, and again after every change there.

    Costs nothing while nothing changes.

    Raises:
        ServeError: the folder can't be watched, or is gone.
    """
    with INotify(nonblocking=True) as inotify:
        try:
            inotify.add_watch(folder, _CHANGES | _GONE | flags.ONLYDIR)
        except OSError as error:
            raise ServeError(f"{folder}: can't be watched: {error.strerror}") from None
        while True:
            yield _look(folder)
            await trio.lowlevel.wait_readable(inotify.fileno())
            if any(event.mask & (_GONE | flags.IGNORED) for event in inotify.read(timeout=0)):
                raise ServeError(f"{folder}: the watched folder is gone")


def _look(folder: Path) -> dict[str, Path]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    found[entry.name] = folder / entry.name
            except FileNotFoundError:  # gone since
                continue
    return found
