"""The daemon: ports wired to signals, reload and the end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import trio
from attrs import define, field

from vchannel import Command, Response
from vhostcomm import values
from vhostcomm.address import Connect, Listen, Sock, parse_api, runtime_directory
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.sockets import group_id, listening, make_folder
from vhostcomm.channel.trace import Trace
from vhostcomm.channel.watch import WatchedFolder
from vhostcomm.config import Config, GuestConfig
from vhostcomm.control.host import Listener
from vhostcomm.control.qemu_host import DEFAULT_TIMEOUT, QemuHostApi
from vhostcomm.control.surface import Surface
from vhostcomm.descriptors import raise_descriptor_limit
from vhostcomm.errors import ServeError, VhostcommError
from vhostcomm.logs import Log

STOP_MARGIN: Final = 1.0
"""Seconds beyond the draining that a port may take to end before it is cancelled."""

REOPEN_PAUSE: Final = 1.0
"""Seconds before a port that an error of our own has closed is opened again."""

WATCH_AGAIN: Final = 5.0
"""Seconds between looks for a watched folder that is gone."""

Reload = Callable[[], Config]


@define
class _Served:
    """A port that runs. `folder` is the watched one that it is from, if it is."""

    config: GuestConfig
    port: Port
    folder: Path | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)


class Daemon:
    """Serves the guests of a configuration.

    Args:
        config: what to serve.
        log: where to tell.
        reload: reads the configuration again, for SIGHUP; None if it can't change.
        trace: is shown every frame.
        api_timeout: seconds that a guest has to answer qemu-host's API where the request doesn't say.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        reload: Reload | None = None,
        *,
        trace: Trace | None = None,
        api_timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._trace = trace
        self._api_timeout = api_timeout
        self._config = config
        self._log = log
        self._reload = reload
        self._served: dict[str, _Served] = {}
        self._seen: dict[Path, dict[str, Path]] = {}  # what is in each watched folder
        self._ignored: set[Path] = set()
        self._reload_asked = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._reloading = trio.Lock()
        self._surface = Surface(self, config.service, log)
        self.listeners: list[Listener] = []
        self.not_reloaded = ""

    @property
    def config(self) -> Config:
        """What is in force."""
        return self._config

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
        with ExitStack() as cleanup:
            folders = [cleanup.enter_context(WatchedFolder(folder)) for folder in self._config.watch]
            cleanup.enter_context(self._surface.listening())
            opened = self._open_all(self._config.guests)
            try:
                api = self._open_api(cleanup)
            except BaseException:
                for _, port in opened:
                    port.close()
                raise
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for config, port in opened:
                    self._start(config, port)
                for folder in folders:
                    nursery.start_soon(self._watch, folder)
                if api:
                    nursery.start_soon(QemuHostApi(self._ask_only_guest, self._log, self._api_timeout).serve, [api])
                task_status.started(self)
                self._log.info("serving", guests=len(self._served), pid=os.getpid())
                self._warn()
                await self._surface.run()
                await trio.sleep_forever()

    async def run_with_signals(self) -> None:
        """Serve until SIGTERM or SIGINT; reload on SIGHUP. A second signal doesn't wait for anything.

        Raises:
            ServeError: see `run`.
        """
        # What stands before the receiver comes back after it: a signal too many must not change the exit status.
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.run)
                nursery.start_soon(self._keep_reloading)
                await self._heed(signals)
                nursery.cancel_scope.cancel()
        self._log.info("stopped")

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                self._log.info("reloading", why=name)
                self._reload_asked.set()
                continue
            self._log.info("stopping", why=name)
            async with trio.open_nursery() as stopping:
                stopping.start_soon(_cancel_on_next, signals, stopping.cancel_scope, self._log)
                await self.stop()
                stopping.cancel_scope.cancel()
            return

    async def _keep_reloading(self) -> None:
        while True:
            await self._reload_asked.wait()
            self._reload_asked = trio.Event()
            await self.reload()

    async def call(self, name: str, command: Command, data: bytes = b"", *, timeout: float, by: str = "") -> Response:
        """Ask a guest; see `Port.call`.

        Raises:
            CallError: there is no answer; says why.
            ServeError: there is no such guest.
        """
        if name not in self._served:
            raise ServeError(f"there is no guest {name!r}; served are: {', '.join(self._served) or 'none'}")
        return await self._served[name].port.call(command, data, timeout=timeout, by=by)

    def _open_api(self, cleanup: ExitStack) -> socket.socket | None:
        service = self._config.service
        if not service.qemu_host_api:
            return None
        address = parse_api(service.qemu_host_api)
        if isinstance(address, Listen):
            self._make_runtime_directory(address.path.parent)
        return cleanup.enter_context(listening(address, service.socket_mode, group_id(service.socket_group)))

    async def _ask_only_guest(self, command: Command, timeout: float) -> bytes:
        for served in self._served.values():
            return (await served.port.call(command, timeout=timeout)).data
        raise CallError(command, Outcome.NOT_CONNECTED, "no guest is served now")

    async def stop(self) -> None:
        """End every port: no more connections, answer what was asked, close. Bounded in time."""
        await self.thaw("the daemon stops")
        await self._end(list(self._served.values()))
        await self._surface.finish()

    async def thaw(self, why: str) -> None:
        """Thaw the guests that were frozen through the control surface. Bounded in time."""
        await self._surface.freezer.thaw_all(why)

    async def reload(self) -> bool:
        """Read the configuration again and serve by it. Guests that stay the same aren't touched.

        A configuration with an error is told and not taken; `not_reloaded` says why. Returns whether it was taken.
        """
        async with self._reloading:
            return await self._reload_once()

    async def _reload_once(self) -> bool:
        if self._reload is None:
            self.not_reloaded = "there is no --config file"
            self._log.warning("nothing to reload: there is no --config file")
            return False
        try:
            config = self._reload()
        except VhostcommError as error:
            self.not_reloaded = str(error)
            self._log.error("not reloaded, the old configuration stays", why=str(error))
            return False
        except Exception:  # noqa: BLE001 - whatever a file can bring about, it mustn't end what is served
            self.not_reloaded = "an error of vhostcomm's own; the log has it"
            self._log.exception("internal error in reading the configuration, the old one stays; please report it")
            return False
        self.not_reloaded = ""
        config = self._keep_running_service(config)
        old, self._config = self._config, config
        raise_descriptor_limit(config, self._log)
        wanted = {guest.name: guest for guest in config.guests}
        ending, changed = [], 0
        for name, served in self._served.items():
            new = wanted.get(name)
            if new is None and served.folder:
                new = config.guest(Sock(name, served.config.address, values.uuid_of(name)))
            if new is None or new.address != served.config.address:
                ending.append(served)
                continue
            if new.identity != served.config.identity or config.host != old.host:
                served.port.guest.change(config.host, new.identity)
                changed += 1
            served.config = new
            served.folder = served.folder if name not in wanted else None
        await self._end(ending)
        added = sum(self._try_start(new) for name, new in wanted.items() if name not in self._served)
        self._match_folders()
        self._warn()
        self._log.info("reloaded", added=added, removed=len(ending), changed=changed, guests=len(self._served))
        return True

    def _warn(self) -> None:
        for warning in self._config.warnings:
            self._log.warning("look at the configuration", why=warning)

    def _keep_running_service(self, config: Config) -> Config:
        """A new configuration with what only a start can change as it is."""
        old = self._config
        keys = [name for name, value in attrs.asdict(config.service).items() if value != getattr(old.service, name)]
        if config.watch != old.watch:
            keys.append("watch")
        if keys:
            self._log.warning("this takes effect at the next start; guests and identities do now", keys=", ".join(keys))
        return attrs.evolve(config, service=old.service, watch=old.watch)

    # -- ports

    def _port(self, config: GuestConfig) -> Port:
        log = self._log.bind(guest=config.name)
        guest = Guest(config.name, config.address, self._config.host, config.identity, log, trace=self._trace)
        guest.listeners.append(self._on_guest)
        return Port(guest, self._config.service)

    def _on_guest(self, guest: Guest, what: str) -> None:
        for listener in tuple(self.listeners):
            listener(guest, what)

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

    def _try_start(self, config: GuestConfig, folder: Path | None = None) -> bool:
        try:
            self._start(config, self._open(config), folder)
        except (ServeError, OSError, RuntimeError) as error:  # no socket, no descriptor, no thread
            self._log.error("guest not served", guest=config.name, why=str(error))
            return False
        return True

    def _start(self, config: GuestConfig, port: Port, folder: Path | None = None) -> None:
        assert self._nursery is not None
        served = self._served[config.name] = _Served(config, port, folder)
        self._nursery.start_soon(self._run_port, served)

    async def _run_port(self, served: _Served) -> None:
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
                    served.port = self._open(served.config)
        except (ServeError, OSError) as error:
            self._log.error("guest not served", guest=served.config.name, why=str(error))
        finally:
            del self._served[served.config.name]
            served.ended.set()

    async def _end(self, ending: list[_Served]) -> None:
        if not ending:
            return
        with trio.move_on_after(self._config.service.drain_timeout + STOP_MARGIN):
            for served in ending:
                served.port.stop()
            for served in ending:
                await served.ended.wait()
        for served in ending:
            served.scope.cancel()
            await served.ended.wait()

    # -- watched folders

    async def _watch(self, folder: WatchedFolder) -> None:
        """Serve what appears in a folder: each socket there is a guest's, with its file's name."""
        while True:
            try:
                async for found in folder.contents():
                    self._seen[folder.path] = found
                    self._match_folders()
            except OSError as error:
                self._log.error(
                    "the watched folder is lost, its guests too; it is looked for again",
                    folder=str(folder.path),
                    why=error.strerror or str(error),
                )
            self._seen[folder.path] = {}
            self._match_folders()
            await folder.reopen(WATCH_AGAIN)

    def _match_folders(self) -> None:
        """Make what is served match what is in the folders: now, and again whenever something has ended."""
        assert self._nursery is not None
        gone = [
            served
            for name, served in self._served.items()
            if served.folder and name not in self._seen.get(served.folder, {})
        ]
        if gone:
            self._nursery.start_soon(self._end_and_match, gone)
        ours = {str(served.config.address) for served in self._served.values()} | {str(self._surface.address)}
        for folder, found in self._seen.items():
            for name, path in found.items():
                served = self._served.get(name)
                if served and served.folder == folder:
                    served.port.nudge.set()
                elif str(path) not in ours:  # else it is one that we listen on ourselves
                    self._serve_watched(folder, name, path)
        self._ignored &= {path for found in self._seen.values() for path in found.values()}

    async def _end_and_match(self, ending: list[_Served]) -> None:
        await self._end(ending)
        self._match_folders()

    def _serve_watched(self, folder: Path, name: str, path: Path) -> None:
        why = ""
        try:
            values.name(name)
        except ValueError as error:
            why = str(error)
        if name in self._served:
            why = "a guest of that name is served already"
        if not why:
            self._try_start(self._config.guest(Sock(name, Connect(path), values.uuid_of(name))), folder)
        elif path not in self._ignored:
            self._ignored.add(path)
            self._log.warning("socket ignored", sock=str(path), why=why)


async def _cancel_on_next(signals: AsyncIterator[int], scope: trio.CancelScope, log: Log) -> None:
    async for number in signals:
        if number != signal.SIGHUP:
            log.warning("not waiting any longer", why=f"a second {signal.Signals(number).name}")
            scope.cancel()
            return
