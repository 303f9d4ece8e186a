"""Reload when the content of the configuration's files changes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from inotify_simple import INotify, flags

from vhostcomm.config.files import SUFFIX, fingerprint
from vhostcomm.linux.threads import in_thread, short_turns
from vhostcomm.log.logs import Log

POLL_INTERVAL: Final = 2.0
"""Seconds between readings of the files. A FUSE such as Proxmox's /etc/pve reports no changes of other hosts."""

READ_SHARE_MAX: Final = 0.05
"""Maximum part of the time for reading: ten thousand files need a second of processor time."""

SETTLE: Final = 0.5
"""Seconds without a change before a reload: a file that is written in place is incomplete at first."""

READ_TIMEOUT: Final = 10.0
"""Seconds for one reading of the files. A file system that needs more hangs."""

_HANGS: Final = "the file system hangs"

_CHANGES: Final = (
    flags.CLOSE_WRITE | flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ATTRIB | flags.ONLYDIR
)


class Changes:
    """The files of a configuration, as far as their content is known.

    Args:
        paths: the files, and directories of files.
        known: the `fingerprint` of the paths before they were read for the active configuration.
    """

    def __init__(self, paths: Sequence[Path], known: str) -> None:
        self._paths = paths
        self._known = known
        self._due = -math.inf
        """When the files may be read next, on trio's clock, so that reading keeps to its share of the time."""
        self._inotify: INotify | None = None
        self._watches: dict[int, tuple[str, ...]] = {}
        """The names of interest, by inotify's watch: files', or a directory's suffix. Two files of a directory have one watch."""

    async def run(self, reload: Callable[[], Awaitable[object]], log: Log) -> None:
        """Reload whenever the content has changed and is stable, until cancelled.

        A rejected reload is not repeated until the content changes again; `reload` reports itself why.
        """
        with suppress(OSError):  # out of inotify instances: changes are noticed later
            self._inotify = INotify(nonblocking=True)
        try:
            while True:
                seen, due = await self._read(), self._due
                while seen != self._known:
                    before = seen
                    await trio.sleep(SETTLE)
                    if self._due > due:  # it has changed again and again
                        await trio.sleep_until(self._due)
                    seen = await self._read()
                    if seen == before != self._known:
                        log.info("reloading", why="the configuration's files have changed")
                        self._known = seen
                        await reload()
                await self._woken()
                await trio.sleep_until(self._due)
        finally:
            if self._inotify:
                self._inotify.close()

    async def _read(self) -> str:
        """Return the fingerprint of the content. A reading that hangs is abandoned, and changes nothing when it returns."""
        started = trio.current_time()
        with short_turns(), trio.move_on_after(READ_TIMEOUT):
            try:
                watches, found = await in_thread("the configuration", self._watch_and_read)
            except RuntimeError:  # no thread can be started: as if it hung
                return _HANGS
            self._due = max(self._due, started) + (trio.current_time() - started) / READ_SHARE_MAX
            for gone in self._watches.keys() - watches.keys():
                assert self._inotify
                with suppress(OSError):  # the kernel has already removed a deleted directory's
                    self._inotify.rm_watch(gone)
            self._watches = watches
            return found
        return _HANGS

    def _watch_and_read(self) -> tuple[dict[int, tuple[str, ...]], str]:
        """Watch the present directories. A directory that was replaced is another one, even at the same path."""
        watches: dict[int, tuple[str, ...]] = {}
        if inotify := self._inotify:
            for path in self._paths:
                with suppress(OSError, ValueError):  # it is missing, or the end came first
                    folder, name = (path, SUFFIX) if path.is_dir() else (path.parent, path.name)
                    watch = inotify.add_watch(folder, _CHANGES)
                    watches[watch] = (*watches.get(watch, ()), name)
        return watches, fingerprint(self._paths)  # first watch, so that no later change is missed

    async def _woken(self) -> None:
        """Wait until a file may have changed, for at most the interval between readings."""
        with trio.move_on_after(POLL_INTERVAL):
            while self._inotify:
                await trio.lowlevel.wait_readable(self._inotify.fileno())
                # A watch of an abandoned reading has no names.
                if any(each.name.endswith(self._watches.get(each.wd, ())) for each in self._inotify.read(timeout=0)):
                    return
            await trio.sleep_forever()
