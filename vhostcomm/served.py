"""The ports that a daemon runs: opened, started, opened again after an error of our own, and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from vhostcomm.address import Listen, runtime_directory
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.sockets import group_id, make_folder
from vhostcomm.config import GuestConfig, Service
from vhostcomm.errors import ServeError
from vhostcomm.identity import HostIdentity
from vhostcomm.logs import Log

STOP_MARGIN: Final = 1.0
"""Seconds beyond the draining that a port may take to end before it is cancelled."""

REOPEN_PAUSE: Final = 1.0
"""Seconds before a port that an error of our own has closed is opened again."""

MakeGuest = Callable[[GuestConfig, Log], Guest]


@define
class Served:
    """A port that runs. `folder` is the watched one that it is from, if it is."""

    config: GuestConfig
    port: Port
    folder: Path | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)


class Ports:
    """Every guest's port, by the guest's name.

    Args:
        service: how ports are made; the same until the end.
        make_guest: makes a guest of its configuration.
        log: where to tell.
    """

    def __init__(self, service: Service, make_guest: MakeGuest, log: Log) -> None:
        self._service = service
        self._make_guest = make_guest
        self._log = log
        self._served: dict[str, Served] = {}
        self.nursery: trio.Nursery | None = None
        """Where ports run."""

    def __len__(self) -> int:
        return len(self._served)

    @property
    def all(self) -> list[Served]:
        return list(self._served.values())

    def get(self, name: str) -> Served | None:
        return self._served.get(name)

    @property
    def guests(self) -> dict[str, Guest]:
        """Every guest that is served, by name."""
        return {name: served.port.guest for name, served in self._served.items()}

    def open(self, config: GuestConfig) -> Port:
        """Take what a port needs; nothing runs yet.

        Raises:
            ServeError: it can't be had.
        """
        if isinstance(config.address, Listen):
            self.make_runtime_directory(config.address.path.parent)
        port = Port(self._make_guest(config, self._log.bind(guest=config.name)), self._service)
        port.open()
        return port

    def open_all(self, configs: Iterable[GuestConfig]) -> list[tuple[GuestConfig, Port]]:
        """Open all of them, or none.

        Raises:
            ServeError: one can't be had.
        """
        opened: list[tuple[GuestConfig, Port]] = []
        try:
            for config in configs:
                opened.append((config, self.open(config)))  # noqa: PERF401 - those opened so far must be closed
        except BaseException:
            for _, port in opened:
                port.close()
            raise
        return opened

    def make_runtime_directory(self, folder: Path) -> None:
        """Make a folder if it is the runtime directory; others are the operator's."""
        try:
            ours = runtime_directory()
        except ValueError:
            return
        if folder == ours:
            make_folder(folder, group_id(self._service.socket_group))

    def start(self, config: GuestConfig, port: Port, folder: Path | None = None) -> None:
        """Run an opened port."""
        assert self.nursery is not None
        served = self._served[config.name] = Served(config, port, folder)
        self.nursery.start_soon(self._run, served)

    def try_start(self, config: GuestConfig, folder: Path | None = None) -> bool:
        """Open and run a port, or tell why not."""
        try:
            self.start(config, self.open(config), folder)
        except (ServeError, OSError, RuntimeError) as error:  # no socket, no descriptor, no thread
            self._log.error("guest not served", guest=config.name, why=str(error))
            return False
        return True

    async def end(self, ending: Iterable[Served]) -> None:
        """End ports: no more connections, answer what was asked, close. Bounded in time."""
        if not (ending := list(ending)):
            return
        with trio.move_on_after(self._service.drain_timeout + STOP_MARGIN):
            for served in ending:
                served.port.stop()
            for served in ending:
                await served.ended.wait()
        for served in ending:
            served.scope.cancel()
            await served.ended.wait()

    def change(self, served: Served, new: GuestConfig, host: HostIdentity) -> bool:
        """Serve a guest by a new configuration with the same address. Returns whether its answers are others now."""
        guest = served.port.guest
        changed = new.identity != served.config.identity or host != guest.host
        if changed:
            guest.change(host, new.identity)
        served.config = new
        return changed

    async def _run(self, served: Served) -> None:
        try:
            with served.scope:
                while True:
                    try:
                        await served.port.run()
                    except Exception:
                        log = self._log.bind(guest=served.config.name)
                        log.exception("internal error, the port is opened again; please report it")
                    else:
                        return
                    await trio.sleep(REOPEN_PAUSE)
                    served.port = self.open(served.config)
        except (ServeError, OSError) as error:
            self._log.error("guest not served", guest=served.config.name, why=str(error))
        finally:
            del self._served[served.config.name]
            served.ended.set()
