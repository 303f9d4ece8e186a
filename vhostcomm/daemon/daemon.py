"""The daemon: connects ports with signals, reloads and the end."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import trio

from vhostcomm.channel.asker import Asker
from vhostcomm.channel.guest import Guest, Trace
from vhostcomm.channel.recordings import Recordings
from vhostcomm.channel.sockets import group_id
from vhostcomm.channel.watch import WatchedFolder
from vhostcomm.cluster.records import View
from vhostcomm.config.identity import HostIdentity
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.config.values import key
from vhostcomm.control.daemon_api import LauncherApi, Listener, MachineApi
from vhostcomm.control.surface import Surface
from vhostcomm.control.web_surface import WebSurface
from vhostcomm.daemon.changes import Changes
from vhostcomm.daemon.descriptors import raise_descriptor_limit
from vhostcomm.daemon.folders import Folders
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.only_guest import OnlyGuest
from vhostcomm.daemon.ports import Ports
from vhostcomm.daemon.reload import Reload, warn, without_collections
from vhostcomm.daemon.snippets import snippets_of
from vhostcomm.daemon.status import of_guests
from vhostcomm.errors import MachineError
from vhostcomm.guest.events import GuestEvent
from vhostcomm.linux.children import reap_orphans
from vhostcomm.linux.signals import handled_signals
from vhostcomm.linux.threads import in_slices
from vhostcomm.log.logs import Log
from vhostcomm.qemu_host.api import DEFAULT_TIMEOUT
from vhostcomm.systemd.notify import Notifier

if TYPE_CHECKING:
    from vhostcomm.daemon.membership import Membership
    from vhostcomm.snippet.parts import Snippet


class Daemon:
    """Serves the guests of a configuration.

    Args:
        config: the configuration to serve.
        reload: reads the configuration again, for SIGHUP; None if it can't change.
        trace: sees every frame.
        api_timeout: seconds for a guest's answer if a request to qemu-host's API has no timeout.
        control_name: names the control surface's socket without `--control`, for one daemon of many.
        notifier: notifies systemd; None if another object does that, or none.
        changes: causes a reload when the configuration's files change; None for no such reloads.
        membership: connects the daemon with its cluster; None for none.
        by_hand: print a link to the web page, because the log goes to a terminal.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        reload: Callable[[], Config] | None = None,
        *,
        trace: Trace | None = None,
        api_timeout: float = DEFAULT_TIMEOUT,
        control_name: str = "",
        notifier: Notifier | None = None,
        changes: Changes | None = None,
        membership: Membership | None = None,
        by_hand: bool = False,
    ) -> None:
        self._trace = trace
        self._changes = changes
        self._log = log
        self._surface = Surface(self, config.service, log, control_name)
        self._web = WebSurface(self, config.service, self._surface.pending, log, by_hand=by_hand)
        self.new_link = self._web.new_link
        self.recordings = Recordings(log, lambda guest: self.guests.get(guest.name) is guest)
        self.freezer = Freezer(self._asker, log)
        self.ask_guest = self.freezer.ask
        self.freeze = self.freezer.freeze
        self._ports = Ports(config.service, config.host, self._make_guest, self.freezer.adopt, log)
        self._only_guest = OnlyGuest(config.service, self._ports, self.freezer, log, api_timeout)
        self._folders = Folders(self._ports, lambda: self.config, lambda: str(self._surface.address), self.freezer, log)
        self.launcher: LauncherApi | None = None
        self._membership = membership
        self.cluster: View | None = membership.view if membership else None
        self._notifier = notifier or Notifier()
        self._notifier.describe = self._describe
        if self.cluster:
            self.cluster.changed = self._notifier.changed
        self.listeners: list[Listener] = [self._notifier.changed, *([membership.on_guest] if membership else [])]
        self._reload = Reload(
            config, reload, self._ports, self._folders, self._surface,
            freezer=self.freezer, around=self._notifier.reloading, changed=self._reloaded, log=log,
        )  # fmt: skip
        self.reload = self._reload.wait

    @property
    def config(self) -> Config:
        """The active configuration."""
        return self._reload.config

    @property
    def not_reloaded(self) -> str:
        """Why the last reload was rejected; empty if it was accepted."""
        return self._reload.why_not

    @property
    def guests(self) -> dict[str, Guest]:
        """All served guests, by name."""
        return self._ports.guests

    def guest(self, name: str) -> Guest | None:
        """Return a served guest by its name."""
        served = self._ports.get(name)
        return served.port.guest if served else None

    async def run(self, *, task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called or the task is cancelled.

        Raises:
            ServeError: a guest can't be served; then none is.
        """
        config = self.config
        raise_descriptor_limit(config, self._log)
        group_id(config.service.socket_group, config.service_sources.get("socket_group", "socket_group"))
        with ExitStack() as cleanup:
            cleanup.enter_context(self._ports.files)
            folders = [cleanup.enter_context(closing(WatchedFolder(path))) for path in config.watch]
            with without_collections():
                _ = config.warnings  # made before any guest is served
                opened = await self._ports.open_all(config.guests, config.host)
                gc.freeze()  # these objects stay, so the collector need not check them again
            try:
                self._surface.listen(cleanup)
                self._web.listen(cleanup)
                api = self._only_guest.listen(cleanup)
            except BaseException:
                await self._ports.discard(opened)
                raise
            for listener in filter(None, (self._surface.listener, api)):
                self._ports.keep(listener)
            async with trio.open_nursery() as nursery:
                self._ports.nursery = nursery
                await nursery.start(self.freezer.run)
                async for each in in_slices(opened):
                    self._ports.start(each)
                opened.clear()  # so that an ended guest's objects are freed
                nursery.start_soon(self._reload.run)
                if self._changes:
                    nursery.start_soon(self._changes.run, self.reload, self._log)
                for folder in folders:
                    nursery.start_soon(self._folders.keep, folder)
                nursery.start_soon(self._ports.keep_sockets)
                if self._membership:
                    nursery.start_soon(self._membership.run, self, self.freezer, self._log)
                if api:
                    nursery.start_soon(self._only_guest.serve, api)
                task_status.started(self)
                self._log.info("serving", guests=len(self._ports), pid=os.getpid())
                warn(config, self._log)
                nursery.start_soon(self._web.run)
                await self._surface.run()
                await trio.sleep_forever()

    async def run_with_signals(self) -> None:
        """Serve until SIGTERM or SIGINT; reload on SIGHUP, reopen recordings on SIGUSR1. A second signal ends at once.

        SIGINT and SIGHUP stay ignored if they are ignored now.

        Raises:
            ServeError: see `run`.
        """
        handled = handled_signals()
        # The receiver restores the handlers before it at its end: a late signal must not change the exit status.
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)
        with trio.open_signal_receiver(*handled) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reap_orphans)
                nursery.start_soon(self._notifier.run)
                await nursery.start(self.run)
                self._notifier.ready()
                await self._handle_signals(signals)
                nursery.cancel_scope.cancel()
        self._log.info("stopped")

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                self._log.info("reloading", why=name)
                self._reload.ask()
                continue
            if number == signal.SIGUSR1:
                await self.reopen_recordings()
                continue
            self._log.info("stopping", why=name)
            self._notifier.stopping(name)
            async with trio.open_nursery() as stopping:
                stopping.start_soon(_cancel_on_next, signals, stopping.cancel_scope, self._log)
                await self.stop()
                stopping.cancel_scope.cancel()
            return

    def probe(self, name: str, age: float) -> trio.Event | None:
        """Probe whether a guest is up; see `Asker.probe`. None if there is no such guest."""
        asker = self._asker(name)
        return asker.probe(age) if asker else None

    def _asker(self, name: str) -> Asker | None:
        served = self._ports.get(name)
        return served.port.asker if served else None

    def machine(self, name: str) -> MachineApi:
        """A guest's QEMU, by QMP.

        Raises:
            MachineError: its QEMU is not known.
        """
        if self.launcher:
            return self.launcher
        served = self._ports.get(name)
        if served is None or served.monitor is None:
            raise MachineError(
                "no QMP socket", "vhostcomm has no connection to its QEMU's QMP",
                f'ask that QEMU itself, or set qmp = "/PATH" under [guests.{key(name)}]: a QMP socket that no other client uses',
            )  # fmt: skip
        return served.monitor

    def snippets(self, name: str) -> dict[str, Snippet]:
        """Return what to paste elsewhere for a served guest, by the tool's name."""
        served = self._ports.get(name)
        assert served
        return snippets_of(self.config, served.config)

    async def stop(self) -> None:
        """End every port: accept no connections, answer pending questions, close. Limited in time."""
        with without_collections():
            await self.freezer.close(self.guests.values(), "the daemon stops")
            await self._ports.end(self._ports.all)
        await self._surface.finish()
        await self.recordings.close()  # also one that began meanwhile

    async def reopen_recordings(self) -> None:
        """Begin new files for recordings whose file was renamed or deleted."""
        self._log.info("reopening recordings", why="SIGUSR1")
        async for served in in_slices(self._ports.all):
            served.port.reopen_recording()

    def _reloaded(self) -> None:
        self._notifier.changed()
        if self._membership:
            self._membership.reloaded()

    def _describe(self) -> str:
        return of_guests(self.guests, self.not_reloaded, self.cluster.warnings if self.cluster else ())

    def _make_guest(self, config: GuestConfig, host: HostIdentity, log: Log) -> Guest:
        guest = Guest(config.name, config.address, host, config.identity, log)
        guest.listeners.append(self._on_guest)
        if self._trace:
            guest.traces.append(self._trace)
        return guest

    def _on_guest(self, guest: Guest, event: GuestEvent) -> None:
        if event is GuestEvent.CONNECTED:
            self.freezer.connected(guest)
        for listener in tuple(self.listeners):
            listener(guest, event)


async def _cancel_on_next(signals: AsyncIterator[int], scope: trio.CancelScope, log: Log) -> None:
    async for number in signals:
        if number not in {signal.SIGHUP, signal.SIGUSR1}:
            log.warning("not waiting any longer", why=f"a second {signal.Signals(number).name}")
            scope.cancel()
            return
