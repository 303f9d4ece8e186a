from __future__ import annotations

import signal

import pytest

from vhostcomm.errors import UsageError, VhostcommError
from vhostcomm.linux.system_errors import NO_THREAD
from vhostcomm.qemu.ending import Ending, EndKind, Stage, classify

GUEST, RESET, PANIC = "guest-shutdown", "guest-reset", "guest-panic"
QUIT, SIGNAL, NOTHING = "host-qmp-quit", "host-signal", ""


@pytest.mark.parametrize(
    ("code", "reason", "stage", "kind"),
    [
        (0, GUEST, None, EndKind.POWERED_OFF),
        (0, GUEST, Stage.POWEROFF, EndKind.STOPPED),
        (0, GUEST, Stage.QUIT, EndKind.STOPPED),
        (0, RESET, None, EndKind.REBOOTED),
        (0, RESET, Stage.POWERDOWN, EndKind.STOPPED),
        (0, QUIT, Stage.QUIT, EndKind.STOPPED),
        (0, QUIT, Stage.POWEROFF, EndKind.QUIT_FROM_OUTSIDE),
        (0, QUIT, None, EndKind.QUIT_FROM_OUTSIDE),
        (0, "host-ui", None, EndKind.QUIT_FROM_OUTSIDE),
        (0, SIGNAL, Stage.TERMINATE, EndKind.STOPPED),
        (0, SIGNAL, Stage.QUIT, EndKind.SIGNALLED),
        (0, SIGNAL, None, EndKind.SIGNALLED),
        (0, PANIC, None, EndKind.PANICKED),
        (1, PANIC, None, EndKind.PANICKED),
        (0, PANIC, Stage.POWEROFF, EndKind.PANICKED),
        (-9, NOTHING, Stage.KILL, EndKind.KILLED),
        (-9, NOTHING, Stage.POWEROFF, EndKind.CRASHED),
        (-9, NOTHING, None, EndKind.CRASHED),
        (-11, NOTHING, None, EndKind.CRASHED),
        (-6, GUEST, None, EndKind.CRASHED),
        (1, NOTHING, None, EndKind.CRASHED),
        (0, NOTHING, None, EndKind.CRASHED),
        (0, "host-error", None, EndKind.CRASHED),
        (0, NOTHING, Stage.QUIT, EndKind.STOPPED),
        (0, "host-error", Stage.QUIT, EndKind.CRASHED),
        (0, QUIT, Stage.TERMINATE, EndKind.STOPPED),
        (0, QUIT, Stage.POWERDOWN, EndKind.QUIT_FROM_OUTSIDE),
        (0, SIGNAL, Stage.KILL, EndKind.STOPPED),
        (0, "host-ui", Stage.KILL, EndKind.QUIT_FROM_OUTSIDE),
        (1, GUEST, Stage.POWEROFF, EndKind.CRASHED),
        (-1, PANIC, None, EndKind.CRASHED),
        (-15, NOTHING, Stage.KILL, EndKind.CRASHED),
    ],
)
def test_ending_of_a_started_qemu_is_classified(code: int, reason: str, stage: Stage | None, kind: EndKind) -> None:
    assert classify(started=True, code=code, reason=reason, panicked=False, stage=stage) is kind


@pytest.mark.parametrize(
    ("code", "stage", "kind"),
    [
        (1, None, EndKind.FAILED_TO_START),
        (0, None, EndKind.FAILED_TO_START),
        (-9, None, EndKind.FAILED_TO_START),
        (-15, Stage.TERMINATE, EndKind.STOPPED),
        (0, Stage.TERMINATE, EndKind.STOPPED),
        (-9, Stage.KILL, EndKind.KILLED),
        (1, Stage.TERMINATE, EndKind.FAILED_TO_START),
        (-15, None, EndKind.FAILED_TO_START),
    ],
)
def test_ending_before_the_start_is_classified(code: int, stage: Stage | None, kind: EndKind) -> None:
    assert classify(started=False, code=code, reason="", panicked=False, stage=stage) is kind


def test_panic_is_the_ending_if_qemu_gives_no_reason() -> None:
    assert classify(started=True, code=0, reason="", panicked=True, stage=None) is EndKind.PANICKED


def test_reason_after_a_survived_panic_is_the_ending() -> None:
    assert classify(started=True, code=0, reason=GUEST, panicked=True, stage=None) is EndKind.POWERED_OFF


def test_every_ending_has_its_code_and_sentence() -> None:
    failures = [kind.exit_code for kind in EndKind if kind.exit_code]
    assert len(set(failures)) == len(failures), "each failure has a code of its own"
    assert not {VhostcommError.exit_code, UsageError.exit_code} & set(failures)
    sentences = {str(Ending(kind, -9, stage=Stage.QUIT)) for kind in EndKind}
    assert len(sentences) == len(EndKind)
    assert all(sentences)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (Ending(EndKind.CRASHED, -11), "QEMU crashed: SIGSEGV"),
        (Ending(EndKind.CRASHED, -signal.SIGRTMIN - 1), "QEMU crashed: signal 35"),
        (Ending(EndKind.CRASHED, 1), "QEMU crashed: exit code 1"),
        (Ending(EndKind.CRASHED, 0), "QEMU ended without a reason"),
        (
            Ending(EndKind.CRASHED, -9),
            "QEMU was killed by SIGKILL, by another process or by the kernel when memory ran out",
        ),
        (Ending(EndKind.FAILED_TO_START, -9, why="no greeting"), "QEMU did not start: SIGKILL (no greeting)"),
        (Ending(EndKind.STOPPED, 0, stage=Stage.TERMINATE), "stopped, by SIGTERM"),
        (Ending(EndKind.STOPPED, 0), "stopped"),
        (
            Ending(EndKind.STOPPED_PAUSED, 0),
            "stopped while the machine was paused, by vhostcomm; the guest did not shut down",
        ),
        (
            Ending(EndKind.STOPPED_PAUSED, 0, stage=Stage.QUIT),
            "stopped while the machine was paused, by QMP quit; the guest did not shut down",
        ),
        (Ending(EndKind.QUIT_FROM_OUTSIDE, 0, "host-ui"), "another QMP client ended QEMU (host-ui)"),
        (Ending(EndKind.FAILED_TO_START, 0), "QEMU did not start: exit code 0"),
    ],
)
def test_sentences(ending: Ending, text: str) -> None:
    assert str(ending) == text


def test_a_crash_is_reported_with_its_remedy() -> None:
    crash = Ending(EndKind.CRASHED, -6, last_lines=("a: failed", "b"), command="qemu \\\n    -m 1")
    assert crash.report() == (
        "QEMU crashed: SIGABRT\n  QEMU's last output:\n    a: failed\n    b\n  to try it by hand:\nqemu \\\n    -m 1"
    )


def test_missing_thread_is_reported_with_its_remedy() -> None:
    def report(*lines: str) -> str:
        return Ending(EndKind.CRASHED, -6, last_lines=lines, command="qemu").report()

    assert report("first", "qemu: qemu_thread_create: Resource", "last") == (
        "QEMU crashed: SIGABRT\n  QEMU's last output:\n    first\n    qemu: qemu_thread_create: Resource\n    last\n"
        f"  {NO_THREAD}\n  to try it by hand:\nqemu"
    )
    assert NO_THREAD not in report("first")
    assert report() == "QEMU crashed: SIGABRT\n  to try it by hand:\nqemu"


MOVED, STOPPED, SHUT = "postmigrate", "paused", "shutdown"


@pytest.mark.parametrize(
    ("paused", "reason", "stage", "kind"),
    [
        (MOVED, QUIT, Stage.QUIT, EndKind.MIGRATED),
        (MOVED, QUIT, None, EndKind.MIGRATED),
        (MOVED, SIGNAL, None, EndKind.MIGRATED),
        (MOVED, GUEST, None, EndKind.POWERED_OFF),
        (STOPPED, QUIT, Stage.QUIT, EndKind.STOPPED_PAUSED),
        (STOPPED, NOTHING, Stage.QUIT, EndKind.STOPPED_PAUSED),
        (STOPPED, SIGNAL, None, EndKind.SIGNALLED),
        (STOPPED, GUEST, Stage.QUIT, EndKind.STOPPED),
        (SHUT, QUIT, Stage.QUIT, EndKind.STOPPED),
        ("", QUIT, Stage.QUIT, EndKind.STOPPED),
    ],
)
def test_ending_of_a_paused_machine_is_classified(paused: str, reason: str, stage: Stage | None, kind: EndKind) -> None:
    found = classify(started=True, code=0, reason=reason, panicked=False, stage=stage, paused=paused)
    assert found is kind


def test_an_intended_end_is_reported_in_a_line() -> None:
    assert Ending(EndKind.POWERED_OFF, 0, last_lines=("warning",), command="qemu").report() == (
        "the guest powered itself off"
    )


def test_a_foreign_signal_is_reported_with_qemus_words() -> None:
    report = Ending(EndKind.SIGNALLED, 0, last_lines=("terminating on signal 15 from pid 7",), command="qemu").report()
    assert report.endswith("terminating on signal 15 from pid 7")
