"""Watched directories: every socket that appears is a guest with the name of its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from vhostcomm.channel.watch import WatchedFolder
from vhostcomm.config import values
from vhostcomm.config.address import Connect, Sock
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.opening import ServedPort
from vhostcomm.daemon.ports import Ports
from vhostcomm.log.logs import Log

RECHECK_INTERVAL: Final = 5.0
"""Seconds between checks for a watched directory that is gone."""


class Folders:
    """The watched directories of a daemon, and the guests in them.

    Args:
        ports: serve the guests.
        config: returns the active configuration.
        own: returns the address of our own socket, which is no guest.
        freezer: thaws a frozen guest before its port ends.
    """

    def __init__(
        self, ports: Ports, config: Callable[[], Config], own: Callable[[], str], freezer: Freezer, log: Log
    ) -> None:
        self._ports = ports
        self._config = config
        self._own = own
        self._freezer = freezer
        self._log = log
        self._seen: dict[Path, dict[str, Path]] = {}  # the sockets in each directory
        self._ignored: set[Path] = set()

    async def keep(self, folder: WatchedFolder) -> None:
        """Serve the guests that appear in a directory, until cancelled."""
        while True:
            try:
                async for found in folder.contents():
                    self._seen[folder.path] = found
                    self.match()
            except OSError as error:
                self._log.error(
                    "watched directory lost, with its guests; retrying",
                    folder=str(folder.path),
                    why=error.strerror or str(error),
                )
            self._seen[folder.path] = {}
            self.match()
            await folder.reopen(RECHECK_INTERVAL)

    def found(self, name: str, config: Config) -> GuestConfig | None:
        """Return the configuration of a guest whose socket is in a watched directory; None if that isn't served."""
        served = self._ports.get(name)
        if served is None or served.folder is None:
            return None
        return config.guest(Sock(name, served.config.address, values.uuid_of(name)))

    def match(self) -> None:
        """Serve exactly the guests in the directories: now, and again whenever a port has ended."""
        assert self._ports.nursery is not None
        if not self._seen:  # for ten thousand guests, the rest takes a while
            return
        gone = [
            each for each in self._ports.all if each.folder and each.config.name not in self._seen.get(each.folder, {})
        ]
        if gone:
            self._ports.nursery.start_soon(self._end_and_match, gone)
        ours = {str(each.config.address) for each in self._ports.all} | {self._own()}
        for folder, found in self._seen.items():
            for name, path in found.items():
                served = self._ports.get(name)
                if served and served.folder == folder:
                    served.port.retry_now.set()
                elif str(path) not in ours:  # otherwise, it is our own socket
                    self._serve(folder, name, path)
        self._ignored &= {path for found in self._seen.values() for path in found.values()}

    async def _end_and_match(self, ending: list[ServedPort]) -> None:
        await self._freezer.thaw_all((each.port.guest for each in ending), "its socket is gone from the directory")
        await self._ports.end(ending)
        self.match()

    def _serve(self, folder: Path, name: str, path: Path) -> None:
        why = ""
        try:
            values.name(name)
        except ValueError as error:
            why = str(error)
        if self._ports.get(name):
            why = "a guest with that name is already served"
        if not why:
            self._ports.start_found(self._config().guest(Sock(name, Connect(path), values.uuid_of(name))), folder)
        elif path not in self._ignored:
            self._ignored.add(path)
            self._log.warning("socket ignored", sock=str(path), why=why)
