"""A folder in which sockets of QEMUs appear and vanish, as the genuine host has one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import trio
from inotify_simple import INotify, flags

from vhostcomm.channel.places import error_of

_CHANGES = flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.MOVED_FROM | flags.ATTRIB
_GONE = flags.DELETE_SELF | flags.MOVE_SELF


def _remedy(folder: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"; make it: install -d -m 0700 {folder}"
        case errno.EACCES:
            return f"; uid {os.geteuid()} must be able to read it"
        case errno.ENOSPC:
            return "; allow more watches: sysctl fs.inotify.max_user_watches"
        case _:
            return ""


class WatchedFolder:
    """A folder that is watched from the entering of the context on.

    Raises:
        ServeError: on entering: it can't be watched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inotify: INotify | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise error_of(error)(
                f"{self.path}: can't be watched: {error.strerror}{_remedy(self.path, error)}"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> None:
        self._inotify = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(self.path, _CHANGES | _GONE | flags.ONLYDIR)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    async def contents(self) -> AsyncIterator[dict[str, Path]]:
        """The sockets in the folder by their names: now, and again after every change there.

        Costs nothing while nothing changes.

        Raises:
            OSError: the folder is gone, or can't be read.
        """
        assert self._inotify is not None
        while True:
            yield _look(self.path)
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            if any(event.mask & (_GONE | flags.IGNORED) for event in self._inotify.read(timeout=0)):
                raise FileNotFoundError(None, "the folder was removed or renamed")

    async def reopen(self, pause: float) -> None:
        """Watch it anew, as soon as that works; tried every so many seconds."""
        self._close()
        while True:
            await trio.sleep(pause)
            try:
                self._open()
            except OSError:
                continue
            return


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
