"""Run QEMU from its start to the reason of its end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from attrs import define, field, frozen

from vhostcomm.errors import QemuError
from vhostcomm.qemu.argv import format_command
from vhostcomm.qemu.child import LAST_WORDS, Child, spawn
from vhostcomm.qemu.ending import Ending, Stage, classify
from vhostcomm.qemu.machine_watch import MachineNotice, MachineWatch, Paused
from vhostcomm.qemu.passt import Connection
from vhostcomm.qemu.qmp import Qmp, QmpClosedError, QmpError, QmpEvent
from vhostcomm.qemu.stopping import Grace, PowerOff, StageBegun, Stopping, split_grace

START_TIMEOUT: Final = 120.0
"""Seconds until QMP answers: QEMU first builds the machine, and preallocating tens of GiB takes that long."""


@frozen
class Started:
    """QMP has answered: the machine is built, and the guest starts."""

    pid: int
    version: str


@frozen
class OutputLine:
    """QEMU wrote a line."""

    text: str


@frozen
class Panicked:
    """The guest's kernel panicked."""


@frozen
class QmpLost:
    """QMP ended before QEMU did. Now only signals can stop QEMU."""

    why: str


Notice = Started | OutputLine | Panicked | MachineNotice | QmpLost | StageBegun | QmpEvent
"""Reported while QEMU runs. Each QMP event is reported as it is, before any notice derived from it."""


@define(eq=False)
class Qemu:
    """One run of QEMU: ``await nursery.start(qemu.run)``, once.

    Cancelling `run` kills QEMU. QEMU also dies with this process.

    Args:
        argv: the command, as made by `argv.build`. QMP is added, on a socket that no other process can reach.
        report: called with every `Notice`. It must neither block nor raise.
        terminal: whether QEMU has standard input and output, for a console on the terminal.
        paused: don't start the guest.
        network: QEMU's connection to passt.
    """

    _argv: Sequence[str]
    _report: Callable[[Notice], None]
    _terminal: bool = field(default=False, kw_only=True)
    _paused: bool = field(default=False, kw_only=True)
    _network: Connection | None = field(default=None, kw_only=True)
    _child: Child | None = field(default=None, init=False)
    _stopping: Stopping | None = field(default=None, init=False)
    _stage: Stage | None = field(default=None, init=False)
    _reason: str = field(default="", init=False)
    _panicked: bool = field(default=False, init=False)
    _why: str = field(default="", init=False)
    _watch: MachineWatch | None = field(default=None, init=False)
    ending: Ending | None = field(default=None, init=False)
    """How QEMU ended; None while it runs."""
    ended: trio.Event = field(factory=trio.Event, init=False)
    """Set when QEMU has ended and `ending` is known."""

    @property
    def pid(self) -> int:
        """QEMU's process id, once `run` has started."""
        return self._running.pid

    async def run(self, *, task_status: trio.TaskStatus[Qemu] = trio.TASK_STATUS_IGNORED) -> Ending:
        """Run QEMU until it ends. `task_status` reports a process; the notice `Started` reports a guest.

        Raises:
            QemuError: the process can't be created. If QEMU itself fails to start, that is an `Ending`.
        """
        if self._child is not None:
            raise RuntimeError("run() was called before: make another Qemu")
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        name = "vhostcomm-qmp"
        # Paused, so that no event is lost before QMP is connected.
        added = ["-S", "-chardev", f"socket,id={name},fd={theirs.fileno()}", "-qmp", f"chardev:{name}"]
        argv, descriptors = [*self._argv, *added], [theirs.fileno()]
        if network := self._network:
            argv = [network.argument if word == network.replaced else word for word in argv]
            descriptors.append(network.descriptor)
        given_up = True
        try:
            with theirs:
                async with spawn(argv, pass_fds=descriptors, terminal=self._terminal) as child:
                    theirs.close()
                    self._child = child
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(child.read_output, lambda line: self._report(OutputLine(line)))
                        talk_ended = trio.Event()
                        nursery.start_soon(self._talk, stream, talk_ended)
                        task_status.started(self)
                        await child.wait()
                        await child.last_words()
                        with trio.move_on_after(LAST_WORDS):  # QMP's last messages have already arrived
                            await talk_ended.wait()
                        given_up = False
                        nursery.cancel_scope.cancel()
        finally:
            stream.socket.close()
            if self._child is not None:
                self.ending = self._conclude(self._child, given_up=given_up)
            self.ended.set()
        return self._known_ending()

    async def wait(self) -> Ending:
        """Wait for the end.

        Raises:
            QemuError: the process couldn't be created.
        """
        await self.ended.wait()
        return self._known_ending()

    async def stop(self, poweroff: PowerOff | None = None, *, grace: Grace | None = None) -> Ending:
        """Stop QEMU in stages; see `stopping`. A second call only waits; to stop faster, call `hurry`.

        `poweroff` asks the guest to power itself off; None if it can't be asked. Without `grace`, the stages share the
        default time, as `split_grace` divides it.

        Raises:
            QemuError: QEMU hangs in the kernel, and survives even SIGKILL.
        """
        if self._stopping:
            return await self.wait()
        grace = grace or split_grace(ready=poweroff is not None)
        self._stopping = Stopping(self, poweroff, grace, self._begin_stage)
        try:
            gone = await self._stopping.run()
        finally:
            self._stopping = None
        if not gone:
            raise QemuError(
                f"QEMU (process {self.pid}) hangs in the kernel, even after SIGKILL: "
                "look for dead storage or a dead network file system"
            )
        return await self.wait()

    def hurry(self) -> None:
        """Stop faster: the first call skips the stages that need the guest, the second everything but SIGKILL.

        Without a stop in progress, this does nothing.
        """
        if self._stopping:
            self._stopping.hurry()

    async def command(self, name: str, /, **arguments: Any) -> Any:
        """Execute a QMP command.

        Raises:
            QmpError: QEMU rejected the command or did not answer, or QMP is not connected.
        """
        if self._watch is None:
            raise QmpClosedError(f"QMP {name}: QEMU has not answered yet")
        return await self._watch.execute(name, **arguments)

    async def resume(self) -> bool:
        """Resume a paused machine. Return False if it already runs.

        Raises:
            MachineError: it can't be resumed, or stopped again at once.
            QmpError: QEMU doesn't answer, or refuses.
        """
        if self._watch is None:
            raise QmpClosedError("QMP cont: QEMU has not answered yet")
        return await self._watch.resume()

    def send_signal(self, number: signal.Signals) -> None:
        """Send QEMU a signal; a QEMU that has ended is ignored."""
        self._running.send_signal(number)

    def _known_ending(self) -> Ending:
        if self.ending is None:
            raise QemuError("QEMU never ran")
        return self.ending

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError("run() was not started: await nursery.start(qemu.run)")
        return self._child

    def _begin_stage(self, begun: StageBegun) -> None:
        self._stage = begun.stage
        self._report(begun)

    async def _talk(self, stream: trio.SocketStream, ended: trio.Event) -> None:
        qmp = Qmp(stream, greeting_timeout=START_TIMEOUT)
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(qmp.run)
                if not self._paused:
                    await qmp.execute("cont")
            except QmpClosedError as error:
                why = str(error)  # usually because QEMU ended; then its exit code says more
            except QmpError as error:
                self._give_up(str(error))
                return
            else:
                running = not self._paused and not {"-incoming", "--incoming"} & set(self._argv)
                watch = self._watch = MachineWatch(qmp.execute, self._report_machine, running=running)
                self._report(Started(self.pid, qmp.version))
                nursery.start_soon(watch.run)
                async for event in qmp.events:
                    self._report(event)
                    self._handle(event)
                    watch.handle(event)
                why = qmp.closed_because
            ended.set()
            # If QEMU closed the connection because it ends, this task is cancelled meanwhile.
            await trio.sleep(LAST_WORDS)
            if self._watch is None:
                self._give_up(why)
            elif not self._reason:
                self._report(QmpLost(why))

    def _give_up(self, why: str) -> None:
        self._why = why
        self._running.send_signal(signal.SIGKILL)

    def _handle(self, event: QmpEvent) -> None:
        if event.name == "SHUTDOWN":
            self._reason = str(event.data.get("reason", ""))
        elif event.name == "GUEST_PANICKED":
            self._panicked = True
            self._report(Panicked())

    def _report_machine(self, notice: MachineNotice) -> None:
        self._report(notice)
        # `Stopping` wakes a suspended guest itself.
        if self._stopping and isinstance(notice, Paused) and notice.pause.status != "suspended":
            self._stopping.found_paused(notice.pause.status, notice.pause.cause)

    def _conclude(self, child: Child, *, given_up: bool) -> Ending:
        """Make the ending; `given_up` if `run` was cancelled and QEMU killed."""
        stage = Stage.KILL if given_up else self._stage
        code = -signal.SIGKILL if child.code is None else child.code
        paused = self._stopping.paused if self._stopping else ""
        if not paused and self._watch and self._watch.pause:
            paused = self._watch.pause.status
        started = self._watch is not None
        kind = classify(
            started=started, code=code, reason=self._reason, panicked=self._panicked, stage=stage, paused=paused
        )
        return Ending(kind, code, self._reason, stage, self._why, child.tail, format_command(self._argv))
