"""Watch directories: those where QEMUs' sockets appear, as on a genuine host, and those of our own sockets."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import trio
from inotify_simple import INotify, flags

from vhostcomm.channel.file_errors import WRONG_PLACE, error_of
from vhostcomm.linux.threads import in_thread
from vhostcomm.log.logs import Log

_CHANGES = flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.MOVED_FROM | flags.ATTRIB
_GONE = flags.DELETE_SELF | flags.MOVE_SELF
_LOST = flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO


def _remedy(folder: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"; make it: install -d -m 0700 {shlex.quote(str(folder))}"
        case errno.EACCES:
            return f"; uid {os.geteuid()} must be able to read it"
        case errno.ENOSPC:
            return "; allow more watches: sysctl fs.inotify.max_user_watches"
        case _:
            return ""


class WatchedFolder:
    """A watched directory, until `close`.

    Raises:
        ServeError: it can't be watched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._inotify = self._open()
        except OSError as error:
            raise error_of(error)(f"{path}: can't be watched: {error.strerror}{_remedy(path, error)}") from None

    def close(self) -> None:
        self._inotify.close()

    def _open(self) -> INotify:
        made = INotify(nonblocking=True)
        try:
            made.add_watch(self.path, _CHANGES | _GONE | flags.ONLYDIR)
        except BaseException:
            made.close()
            raise
        return made

    async def contents(self) -> AsyncIterator[dict[str, Path]]:
        """Yield the sockets in the directory by name: now, and after every change.

        Costs nothing without changes.

        Raises:
            OSError: the directory is gone or unreadable.
        """
        while True:
            yield await in_thread(self.path, _look, self.path)
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            if any(event.mask & (_GONE | flags.IGNORED) for event in self._inotify.read(timeout=0)):
                raise FileNotFoundError(None, "the directory was removed or renamed")

    async def reopen(self, pause: float) -> None:
        """Watch the directory again as soon as possible; try every `pause` seconds."""
        self.close()
        while True:
            await trio.sleep(pause)
            with suppress(OSError):
                self._inotify = await in_thread(self.path, self._open)
                return


class SocketFiles:
    """Watches the files of our own sockets, and reports which may have been deleted or replaced.

    It uses one descriptor, while the context is entered, and one watch for each directory.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._inotify: INotify | None = None
        self._why_not: OSError | None = None
        self._folders: dict[int, Path] = {}
        self._warned = False

    def __enter__(self) -> Self:
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            self._why_not = error  # logged with the first directory
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def add(self, folder: Path, *, bound: bool = True) -> None:
        """Watch another directory. A directory that was deleted and created again counts as another.

        It may block, and can be called in any thread. Unless a socket is `bound` there, a place that can't be watched
        isn't logged: binding has the same error, or another call follows.
        """
        try:
            if self._inotify is None:
                if self._why_not is None:  # an abandoned thread returned after the end
                    return
                raise self._why_not
            self._folders[self._inotify.add_watch(folder, _LOST | _GONE | flags.ONLYDIR)] = folder
        except OSError as error:
            if not self._warned and (bound or error.errno not in WRONG_PLACE):
                self._warned = True
                self._log.warning(
                    "directory can't be watched, deleted sockets go unnoticed",
                    folder=str(folder),
                    why=error.strerror,
                    remedy=f"uid {os.geteuid()} must be able to read it"
                    if error.errno == errno.EACCES
                    else "sysctl fs.inotify.max_user_instances fs.inotify.max_user_watches",
                )

    def __contains__(self, folder: Path) -> bool:
        return folder in tuple(self._folders.values())  # which threads add to

    async def lost(self) -> AsyncIterator[set[Path] | None]:
        """Yield paths whose file was deleted, renamed or replaced; None for all paths."""
        while self._inotify is not None:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            paths: set[Path] = set()
            yield None if self._read(self._inotify, paths) else paths

    def _read(self, inotify: INotify, paths: set[Path]) -> bool:
        """Add the paths of events. Return whether all paths have to be checked."""
        everything = False
        for event in inotify.read(timeout=0):
            folder = self._folders.get(event.wd)
            if event.mask & _GONE and folder:
                self._folders.pop(event.wd)
                everything = True
                if event.mask & flags.MOVE_SELF:
                    inotify.rm_watch(event.wd)
            everything |= bool(event.mask & flags.Q_OVERFLOW)
            if folder and event.name:
                paths.add(folder / event.name)
        return everything


def _look(folder: Path) -> dict[str, Path]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    found[entry.name] = folder / entry.name
            except FileNotFoundError:  # deleted meanwhile
                continue
    return found
