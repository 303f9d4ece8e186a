"""The daemon: ports wired to signals, reload and the end."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from vchannel import Command, Response
from vhostcomm import values
from vhostcomm.address import Connect, Listen, Sock, runtime_directory
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.sockets import group_id, make_folder
from vhostcomm.channel.watch import sockets_in
from vhostcomm.config import Config, GuestConfig
from vhostcomm.errors import ServeError, VhostcommError
from vhostcomm.logs import Log

DESCRIPTORS_PER_GUEST: Final = 4
"""A listening socket, its lock, a connection, and one to refuse a second connection with."""

DESCRIPTORS_SPARE: Final = 64
"""For the event loop, logs, recordings, the configuration."""

DESCRIPTORS_WATCHING: Final = 4096
"""Raised to where guests appear by themselves and nobody has said how many."""

STOP_MARGIN: Final = 1.0
"""Seconds beyond the draining that a port may take to end before it is cancelled."""

Reload = Callable[[], Config]


@define
class _Served:
    """A port that runs."""

    config: GuestConfig
    port: Port
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)


class Daemon:
    """Serves the guests of a configuration.

    Args:
        config: what to serve.
        log: where to tell.
        reload: reads the configuration again, for SIGHUP; None if it can't change.
    """

    def __init__(self, config: Config, log: Log, reload: Reload | None = None) -> None:
        self._config = config
        self._log = log
        self._reload = reload
        self._served: dict[str, _Served] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def guests(self) -> dict[str, Guest]:
        """Every guest that is served, by name."""
        return {name: served.port.guest for name, served in self._served.items()}

    async def run(self, *, task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called or the task is cancelled.

        Raises:
            ServeError: a guest can't be served; none is then.
        """
        raise_descriptor_limit(self._config, self._log)
        group_id(self._config.service.socket_group)
        opened = self._open_all(self._config.guests)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for config, port in opened:
                self._start(config, port)
            for folder in self._config.watch:
                nursery.start_soon(self._watch, folder)
            task_status.started(self)
            self._log.info("serving", guests=len(self._served), pid=os.getpid())
            await trio.sleep_forever()

    async def run_with_signals(self) -> None:
        """Serve until SIGTERM or SIGINT; reload on SIGHUP. A second signal doesn't wait for anything.

        Raises:
            ServeError: see `run`.
        """
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.run)
                await self._heed(signals)
                nursery.cancel_scope.cancel()
        self._log.info("stopped")

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                self._log.info("reloading", why=name)
                await self.reload()
                continue
            self._log.info("stopping", why=name)
            async with trio.open_nursery() as stopping:
                stopping.start_soon(_cancel_on_next, signals, stopping.cancel_scope, self._log)
                await self.stop()
                stopping.cancel_scope.cancel()
            return

    async def call(self, name: str, command: Command, data: bytes = b"", *, timeout: float) -> Response:
        """Ask a guest; see `Port.call`.

        Raises:
            CallError: there is no answer; says why.
            ServeError: there is no such guest.
        """
        if name not in self._served:
            raise ServeError(f"there is no guest {name!r}; served are: {', '.join(self._served) or 'none'}")
        return await self._served[name].port.call(command, data, timeout=timeout)

    async def stop(self) -> None:
        """End every port: no more connections, answer what was asked, close. Bounded in time."""
        await self._end(list(self._served.values()))

    async def reload(self) -> bool:
        """Read the configuration again and serve by it. Guests that stay the same aren't touched.

        A configuration with an error is told and not taken. Returns whether it was taken.
        """
        if self._reload is None:
            self._log.warning("nothing to reload: there is no --config file")
            return False
        try:
            config = self._reload()
            group_id(config.service.socket_group)
        except VhostcommError as error:
            self._log.error("not reloaded, the old configuration stays", why=str(error))
            return False
        if config.service != self._config.service or config.watch != self._config.watch:
            self._log.warning("changes in [serve] take effect at the next start; guests and identities do now")
        old, self._config = self._config, config
        wanted = {guest.name: guest for guest in config.guests}
        watched = {name: each for name, each in self._served.items() if name not in {one.name for one in old.guests}}
        ending, changed = [], 0
        for name, served in list(self._served.items()):
            if name in watched:
                wanted.setdefault(name, config.guest(Sock(name, served.config.address, _uuid_of(name))))
            new = wanted.get(name)
            if new is None or new.address != served.config.address:
                ending.append(served)
            elif new.identity != served.config.identity or config.host != old.host:
                served.config = new
                served.port.guest.change(config.host, new.identity)
                changed += 1
        await self._end(ending)
        added = 0
        for name, new in wanted.items():
            if name not in self._served:
                added += self._try_start(new)
        self._log.info("reloaded", added=added, removed=len(ending), changed=changed, guests=len(self._served))
        return True

    # -- ports

    def _port(self, config: GuestConfig) -> Port:
        log = self._log.bind(guest=config.name)
        return Port(Guest(config.name, config.address, self._config.host, config.identity, log), self._config.service)

    def _open(self, config: GuestConfig) -> Port:
        if isinstance(config.address, Listen):
            self._make_runtime_directory(config.address.path.parent)
        port = self._port(config)
        port.open()
        return port

    def _open_all(self, configs: tuple[GuestConfig, ...]) -> list[tuple[GuestConfig, Port]]:
        opened: list[tuple[GuestConfig, Port]] = []
        try:
            for config in configs:
                opened.append((config, self._open(config)))  # noqa: PERF401 - those opened so far must be closed
        except BaseException:
            for _, port in opened:
                port.close()
            raise
        return opened

    def _make_runtime_directory(self, folder: Path) -> None:
        try:
            ours = runtime_directory()
        except ValueError:
            return
        if folder == ours:
            make_folder(folder, group_id(self._config.service.socket_group))

    def _try_start(self, config: GuestConfig) -> bool:
        try:
            self._start(config, self._open(config))
        except ServeError as error:
            self._log.error("guest not served", guest=config.name, why=str(error))
            return False
        return True

    def _start(self, config: GuestConfig, port: Port) -> None:
        assert self._nursery is not None
        served = self._served[config.name] = _Served(config, port)
        self._nursery.start_soon(self._run_port, served)

    async def _run_port(self, served: _Served) -> None:
        try:
            with served.scope:
                await served.port.run()
        finally:
            del self._served[served.config.name]
            served.ended.set()

    async def _end(self, ending: list[_Served]) -> None:
        with trio.move_on_after(self._config.service.drain_timeout + STOP_MARGIN):
            for served in ending:
                served.port.stop()
            for served in ending:
                await served.ended.wait()
        for served in ending:
            served.scope.cancel()
            await served.ended.wait()

    async def _watch(self, folder: Path) -> None:
        """Serve what appears in a folder: each socket there is a guest's, with its file's name."""
        ours: dict[str, _Served] = {}
        async for found in sockets_in(folder):
            for name in set(ours) - set(found):
                await self._end([ours.pop(name)])
            for name, path in found.items():
                if name in ours:
                    ours[name].port.nudge.set()
                elif served := self._serve_watched(name, path):
                    ours[name] = served

    def _serve_watched(self, name: str, path: Path) -> _Served | None:
        try:
            values.name(name)
        except ValueError as error:
            self._log.warning("socket ignored", sock=str(path), why=str(error))
            return None
        if name in self._served:
            self._log.warning("socket ignored", sock=str(path), why="a guest of that name is served already")
            return None
        config = self._config.guest(Sock(name, Connect(path), _uuid_of(name)))
        return self._served[name] if self._try_start(config) else None


async def _cancel_on_next(signals: AsyncIterator[int], scope: trio.CancelScope, log: Log) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            log.warning("not waiting any longer", why=f"a second {signal.Signals(number).name}")
            scope.cancel()
            return


def _uuid_of(name: str) -> str:
    try:
        return values.uuid_text(name)
    except ValueError:
        return ""


def raise_descriptor_limit(config: Config, log: Log) -> None:
    """Raise the soft limit of open files to what the guests need, as far as the hard one lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = DESCRIPTORS_SPARE + DESCRIPTORS_PER_GUEST * len(config.guests)
    if config.watch:
        need = max(need, DESCRIPTORS_WATCHING)
    if need <= soft or soft == resource.RLIM_INFINITY:
        return
    reached = need if hard == resource.RLIM_INFINITY else min(need, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
    if reached < need:
        log.warning(
            "too few file descriptors for all guests; some may have to wait",
            limit=reached,
            needed=need,
            remedy="raise LimitNOFILE= in the unit, or `ulimit -Hn`",
        )
