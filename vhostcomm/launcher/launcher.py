"""The launcher: one guest's QEMU and its daemon in one process, from the start to the reason of the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import trio
from attrs import frozen

from vhostcomm.channel.guest import Guest
from vhostcomm.config.models import Config
from vhostcomm.daemon.daemon import Daemon
from vhostcomm.daemon.status import of_launched
from vhostcomm.errors import MachineError
from vhostcomm.guest.events import GuestEvent
from vhostcomm.launcher.hooks import Hooks
from vhostcomm.launcher.power_off import PowerOff
from vhostcomm.linux.children import reap_orphans
from vhostcomm.linux.signals import handled_signals
from vhostcomm.log.logs import LimitedLog, Log
from vhostcomm.qemu import passt
from vhostcomm.qemu.balloon import Balloon, balloon
from vhostcomm.qemu.ending import Ending, EndKind
from vhostcomm.qemu.machine import Machine, SerialTerminal
from vhostcomm.qemu.machine_watch import DiskError, Paused, Rebooted, Resumed
from vhostcomm.qemu.qmp import QmpError, QmpEvent
from vhostcomm.qemu.restart import Restart, Restarts, RestartWhen
from vhostcomm.qemu.stopping import DEFAULT_GRACE, StageBegun, split_grace
from vhostcomm.qemu.supervise import Notice, OutputLine, Panicked, Qemu, QmpLost, Started
from vhostcomm.systemd.notify import Notifier

if TYPE_CHECKING:
    from vhostcomm.cluster.lock import RunLock

HOOK_TIMEOUT: Final = 5.0
"""Seconds that the launcher waits at its end for running hooks."""

STAGE_MARGIN: Final = 20.0
"""Seconds to request from systemd beyond a stage's own: until the next stage, or until hooks and draining are done."""


@frozen
class Launch:
    """What to launch, and how.

    Args:
        argv: its command.
        config: of one guest.
        grace: seconds for all stages of a stop together.
        restart: after which endings to start QEMU again.
        hooks: (event, program) pairs.
    """

    machine: Machine
    argv: list[str]
    config: Config
    grace: float = DEFAULT_GRACE
    restart: RestartWhen = RestartWhen.NO
    hooks: tuple[tuple[str, str], ...] = ()


class Launcher:
    """Runs a guest: its daemon, its QEMU, and a stop on request.

    Args:
        launch: what to launch.
        notifier: notifies systemd, if that started this process.
        lock: of the guest, which was taken; None without a cluster.
    """

    def __init__(self, launch: Launch, log: Log, notifier: Notifier | None = None, lock: RunLock | None = None) -> None:
        self._launch = launch
        self._lock = lock
        self._log = log
        self._qemu_lines = LimitedLog(log)
        self._daemon = Daemon(
            launch.config, log, control_name=launch.config.guests[0].name, by_hand=sys.stderr.isatty()
        )
        self._power_off = PowerOff(self._daemon, launch.grace, self._qemu_lines)
        self.confirmed = self._power_off.confirmed
        self._restarts = Restarts(launch.restart)
        self._qemu: Qemu | None = None
        self._stop_why = ""
        self._stop = trio.Event()
        self._ending: Ending | None = None
        self.stage = ""
        """The current stage of a stop; empty without a stop."""
        self.ended = trio.Event()
        """Set when QEMU has ended and is not started again."""
        self._daemon.launcher = self
        self._notifier = notifier or Notifier()
        self._notifier.describe = self._describe
        self._daemon.listeners.append(self._notifier.changed)
        facts = {"guest": launch.config.guests[0].name, "uuid": launch.config.guests[0].identity.uuid}
        self._hooks = Hooks(launch.hooks, facts, log)

    async def run(self) -> Ending:
        """Run until the guest has ended. Return its last ending.

        Raises:
            ServeError: its socket can't be bound.
            QemuError: QEMU can't be run.
        """
        if isinstance(self._launch.machine.serial, SerialTerminal):
            # If this process were suspended, QEMU would read the terminal together with the shell.
            signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        with trio.open_signal_receiver(*handled_signals()) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reap_orphans)
                nursery.start_soon(self._handle_signals, signals)
                nursery.start_soon(self._notifier.run)
                if self._lock:
                    nursery.start_soon(self._lock.keep)
                async with trio.open_nursery() as serving:
                    # Bound before QEMU starts, so that its first attempt to connect succeeds.
                    await serving.start(self._daemon.run)
                    self._daemon.listeners.append(self._on_guest)
                    self._hooks.nursery = nursery
                    ending = self._ending = await self._run_with_restarts()
                    self.ended.set()
                    if not self._stop.is_set():
                        self._notifier.stopping("the guest is done")
                    await self._daemon.stop()
                    await self._hooks.finish(HOOK_TIMEOUT)
                    serving.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
        return ending

    def stop(self, why: str) -> None:
        """Request a stop; a further request hurries it."""
        if self._stop.is_set():
            self._log.warning("stopping faster", why=why)
            if self._qemu:
                self._qemu.hurry()
            return
        self._stop_why = why
        self._log.info("stopping", why=why)
        self._notifier.stopping(why)
        for guest in self._daemon.guests.values():
            guest.stopping(why, "stop of the launcher")
        self._stop.set()

    def ask_to_stop(self, by: str) -> None:
        """Request a stop like `stop`, but a further request changes nothing."""
        if not self._stop.is_set():
            self.stop(by)

    async def resume(self) -> bool:
        """Resume the machine; see `MachineApi`."""
        try:
            return await self._running().resume()
        except QmpError as error:
            raise MachineError("not resumed", str(error), "look at QEMU's messages in the log") from None

    async def balloon(self, size: int | None) -> Balloon:
        """Ask the guest to change its memory; see `MachineApi`."""
        try:
            return await balloon(self._running().command, size)
        except QmpError as error:
            raise MachineError("not done", str(error), "look at QEMU's messages in the log") from None

    def _running(self) -> Qemu:
        if self._qemu is None:
            raise MachineError("not running", "no QEMU runs", "wait until it is started again")
        return self._qemu

    @property
    def ending(self) -> tuple[str, int]:
        """The ending and its exit status, once `ended` is set."""
        assert self._ending is not None
        return str(self._ending), self._ending.exit_code

    @property
    def _guest(self) -> Guest:
        (guest,) = self._daemon.guests.values()
        return guest

    def _describe(self) -> str:
        return of_launched(self._guest, self.stage, runs=self._qemu is not None) if self._daemon.guests else ""

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                await self._daemon.reopen_recordings()
                continue
            self.stop(signal.Signals(number).name)

    async def _run_with_restarts(self) -> Ending:
        while True:
            ending = await self._run_once()
            if self._stop.is_set():
                return ending
            decision = self._restarts.after(ending, trio.current_time())
            if not isinstance(decision, Restart):
                if ending.exit_code:
                    self._log.info("not started again", why=decision.why)
                return ending
            if self._started_elsewhere():
                return ending
            self._log.warning("starting again", seconds=decision.delay, number=decision.number)
            with trio.move_on_after(decision.delay):
                await self._stop.wait()
                return ending
            if self._started_elsewhere():  # during the delay
                return ending

    def _started_elsewhere(self) -> bool:
        """Whether another host is known to have the guest's lock; if so, log it."""
        if not self._lock or not (holder := self._lock.holder):
            return False
        self._log.error("not started again", why=f"{holder.host} has started the guest")
        return True

    async def _run_once(self) -> Ending:
        self._power_off.qemu_starts()
        machine = self._launch.machine
        async with passt.connected(machine) as network, trio.open_nursery() as nursery:
            terminal = isinstance(machine.serial, SerialTerminal)
            qemu = Qemu(self._launch.argv, self._on_notice, terminal=terminal, network=network)
            await nursery.start(qemu.run)
            self._qemu = qemu
            nursery.start_soon(self._stop_when_asked, qemu)
            ending = await qemu.wait()
            nursery.cancel_scope.cancel()
        self._qemu = None
        self._notifier.changed()
        self._log_ending(ending)
        return ending

    async def _stop_when_asked(self, qemu: Qemu) -> None:
        await self._stop.wait()
        self._hooks.happened("stopping", why=self._stop_why)
        grace = split_grace(self._launch.grace, ready=self._power_off.ready.is_set())
        press_button = partial(qemu.command, "system_powerdown")
        await qemu.stop(lambda: self._power_off.ask(self._guest, press_button, self._stop_why), grace=grace)

    # -- events

    def _on_guest(self, guest: Guest, event: GuestEvent) -> None:
        if event is GuestEvent.READY:
            self._power_off.ready.set()
            self._hooks.happened("ready", serial=guest.identity.serial)

    def _on_notice(self, notice: Notice) -> None:
        match notice:
            case Started(pid, version):
                self._log.info("QEMU runs", pid=pid, version=version)
                self._notifier.ready()
            case OutputLine(text):
                self._qemu_lines.warning("QEMU reported", text=text)
            case Rebooted(by_guest, count):
                self._qemu_lines.info("machine reset", by="the guest" if by_guest else "QMP", count=count)
                self._guest.machine_reset()
                self._power_off.machine_reset()
                self._hooks.happened("rebooted", by="guest" if by_guest else "host", count=str(count))
            case Panicked():
                self._qemu_lines.error("the guest's kernel panicked")
            case Paused(pause):
                self._guest.machine_paused(pause.cause, pause.remedy_for(self._guest.name))
            case Resumed():
                self._guest.machine_resumed()
            case DiskError(disk, reason):
                self._qemu_lines.error("disk error reported to the guest", disk=disk, why=reason)
            case QmpLost(why):
                self._guest.machine_resumed()  # a pause is no longer known
                self._log.warning("QMP ended; QEMU can only be stopped by signals", why=why)
            case StageBegun(stage, seconds, why):
                self.stage = stage.means
                self._notifier.extend(seconds + STAGE_MARGIN)
                self._notifier.changed()
                self._log.info("stopping QEMU", stage=stage.means, seconds=round(seconds, 1), why=why)
            case QmpEvent("NETDEV_STREAM_DISCONNECTED"):
                self._log.error("passt ended, the guest has no network until its next start")
            case QmpEvent(name):
                self._log.debug("QMP", name=name, data=notice.data)
            case _:
                assert_never(notice)

    def _log_ending(self, ending: Ending) -> None:
        facts = {"why": str(ending), "kind": ending.kind.value, "code": ending.code}
        if ending.exit_code == 0:
            self._log.info("QEMU ended", **facts)
        else:
            self._log.error("QEMU ended", **facts)
        crashed = ending.kind in {EndKind.CRASHED, EndKind.PANICKED, EndKind.FAILED_TO_START}
        self._hooks.happened("crashed" if crashed else "stopped", **{key: str(value) for key, value in facts.items()})
