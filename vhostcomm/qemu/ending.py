"""Classify why a QEMU ended, from its QMP events, its exit code and what was requested of it.

The exit code alone says little: it is 0 after a guest's power-off, a reboot with `-no-reboot`, a panic, `quit` and
every signal that QEMU handles.
"""

from __future__ import annotations

import signal
from enum import Enum, IntEnum
from typing import Final, Self

from attrs import frozen

from vhostcomm.linux.system_errors import NO_THREAD
from vhostcomm.qemu.pause_cause import MIGRATED

_NO_THREAD: Final = "qemu_thread_create"
"""Part of QEMU's last output before it aborts because it can't create a thread."""


class Stage(IntEnum):
    """The ways to stop a guest, gentlest first, with their `means`."""

    means: str

    def __new__(cls, value: int, means: str) -> Self:
        stage = int.__new__(cls, value)
        stage._value_ = value
        stage.means = means
        return stage

    POWEROFF = 1, "the guest's own power-off, through the vchannel"
    POWERDOWN = 2, "the power button (system_powerdown)"
    QUIT = 3, "QMP quit"
    TERMINATE = 4, "SIGTERM"
    KILL = 5, "SIGKILL"


class EndKind(Enum):
    """How QEMU ended, with a launcher's `exit_code`. 1 and 2 are other errors: see `vhostcomm.errors`."""

    exit_code: int

    def __new__(cls, value: str, exit_code: int) -> Self:
        kind = object.__new__(cls)
        kind._value_ = value
        kind.exit_code = exit_code
        return kind

    POWERED_OFF = "powered-off", 0  # the guest shut itself down
    REBOOTED = "rebooted", 0  # with -no-reboot, where a reboot ends QEMU
    STOPPED = "stopped", 0  # by vhostcomm, with any stage up to SIGTERM
    FAILED_TO_START = "failed-to-start", 3
    PANICKED = "panicked", 4
    CRASHED = "crashed", 5  # a signal, including SIGKILL of another process; an exit code; or 0 without a reason
    QUIT_FROM_OUTSIDE = "quit-from-outside", 6  # by another QMP client
    SIGNALLED = "signalled", 7  # by SIGTERM, SIGINT or SIGHUP of another process
    KILLED = "killed", 8  # by vhostcomm with SIGKILL: data that QEMU had not yet written is lost
    STOPPED_PAUSED = "stopped-paused", 9  # by vhostcomm while paused: the guest could not shut down
    MIGRATED = "migrated", 10  # the guest runs in another QEMU, or was saved to a file


@frozen
class Ending:
    """The end of one run of QEMU.

    Args:
        kind: how it ended.
        code: QEMU's exit code, or minus a signal's number.
        reason: of QMP's last SHUTDOWN event; "" without one.
        stage: the last stage of stopping it; None if it was not being stopped.
        why: further details, such as a missing greeting; usually "".
        last_lines: of its output.
        command: for a shell.
    """

    kind: EndKind
    code: int
    reason: str = ""
    stage: Stage | None = None
    why: str = ""
    last_lines: tuple[str, ...] = ()
    command: str = ""

    @property
    def exit_code(self) -> int:
        return self.kind.exit_code

    def __str__(self) -> str:
        """Describe the end in one sentence."""
        text = self._text()
        return f"{text} ({self.why})" if self.why else text

    def report(self) -> str:
        """Describe the end; after a failure, add QEMU's last output and the command on further lines."""
        text = str(self)
        if self.exit_code and self.last_lines:
            text += "\n  QEMU's last output:" + "".join(f"\n    {line}" for line in self.last_lines)
        if self.kind in {EndKind.CRASHED, EndKind.FAILED_TO_START}:
            if any(_NO_THREAD in line for line in self.last_lines):
                text += f"\n  {NO_THREAD}"
            text += f"\n  to try it by hand:\n{self.command}"
        return text

    def _text(self) -> str:
        match self.kind:
            case EndKind.POWERED_OFF:
                return "the guest powered itself off"
            case EndKind.REBOOTED:
                return "the guest rebooted, which ends QEMU here"
            case EndKind.STOPPED:
                return f"stopped, by {self.stage.means}" if self.stage else "stopped"
            case EndKind.STOPPED_PAUSED:
                return f"stopped while the machine was paused, by {self.stage.means if self.stage else 'vhostcomm'}; the guest did not shut down"
            case EndKind.MIGRATED:
                return "the guest was migrated to another QEMU, or saved to a file; this QEMU has ended"
            case EndKind.KILLED:
                return "killed by vhostcomm; data that QEMU had not yet written to its disks is lost"
            case EndKind.PANICKED:
                return "the guest's kernel panicked"
            case EndKind.QUIT_FROM_OUTSIDE:
                return f"another QMP client ended QEMU ({self.reason})"
            case EndKind.SIGNALLED:
                return "another process ended QEMU with a signal (SIGTERM, SIGINT or SIGHUP)"
            case EndKind.CRASHED if self.code == -signal.SIGKILL:
                return "QEMU was killed by SIGKILL, by another process or by the kernel when memory ran out"
            case EndKind.CRASHED if self.code == 0:
                return "QEMU ended without a reason"
            case EndKind.CRASHED:
                return f"QEMU crashed: {code_name(self.code)}"
            case EndKind.FAILED_TO_START:
                return f"QEMU did not start: {code_name(self.code)}"


def code_name(code: int) -> str:
    """Describe an exit code, or minus a signal's number."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def classify(
    *, started: bool, code: int, reason: str, panicked: bool, stage: Stage | None, paused: str = ""
) -> EndKind:
    """Classify how a QEMU ended. `code`, `reason` and `stage` are those of `Ending`.

    Args:
        started: whether QMP had answered.
        panicked: whether GUEST_PANICKED occurred.
        paused: QMP's RunState of a machine that was paused at the end; "" if it was running.
    """
    kind = _classify(started=started, code=code, reason=reason, panicked=panicked, stage=stage)
    if paused == MIGRATED and kind in {EndKind.STOPPED, EndKind.QUIT_FROM_OUTSIDE, EndKind.SIGNALLED}:
        return EndKind.MIGRATED
    # With -no-shutdown, a guest that powered itself off is paused too.
    if paused and paused != "shutdown" and kind is EndKind.STOPPED and reason != "guest-shutdown":
        return EndKind.STOPPED_PAUSED
    return kind


def _classify(*, started: bool, code: int, reason: str, panicked: bool, stage: Stage | None) -> EndKind:
    if code == -signal.SIGKILL and stage is Stage.KILL:
        return EndKind.KILLED
    if not started:
        # Until QEMU has installed its handlers, SIGTERM kills it.
        return EndKind.STOPPED if stage and code in {0, -signal.SIGTERM} else EndKind.FAILED_TO_START
    if code < 0:
        return EndKind.CRASHED
    if reason == "guest-panic" or (panicked and not reason):
        return EndKind.PANICKED  # with any code: it is 1 with -action panic=exit-failure
    if code > 0:
        return EndKind.CRASHED
    match reason:
        case "guest-shutdown":
            return EndKind.STOPPED if stage else EndKind.POWERED_OFF
        case "guest-reset":
            return EndKind.STOPPED if stage else EndKind.REBOOTED
        case "host-qmp-quit":
            return EndKind.STOPPED if stage and stage >= Stage.QUIT else EndKind.QUIT_FROM_OUTSIDE
        case "host-signal":
            return EndKind.STOPPED if stage and stage >= Stage.TERMINATE else EndKind.SIGNALLED
        case "host-ui":
            return EndKind.QUIT_FROM_OUTSIDE
        case _:
            return EndKind.STOPPED if stage and not reason else EndKind.CRASHED
