"""A real QEMU, with guests of a few bytes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.qemu.roms import PANIC, POWER_OFF, POWER_OFF_AT_A_KEY, REBOOT_THREE_TIMES
from tests.qemu.running import SHORT, Run, grace_of, guest, supervise
from tests.trio_help import run_in_real_time
from vhostcomm.qemu.argv import format_command
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import EndKind, Stage
from vhostcomm.qemu.machine_watch import Rebooted
from vhostcomm.qemu.qmp import ANSWER_TIMEOUT, QmpCommandError, QmpError, QmpEvent
from vhostcomm.qemu.stopping import StageBegun
from vhostcomm.qemu.supervise import Panicked, QmpLost, Started

pytestmark = pytest.mark.usefixtures("nothing_left")


# -- the guest ends QEMU


def test_the_guest_powers_off(can: Capabilities, tmp_path: Path) -> None:
    ending, run = supervise(guest(can, tmp_path, POWER_OFF))
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.POWERED_OFF, "guest-shutdown", 0)
    assert [type(notice) for notice in run.notices][:2] == [Started, QmpEvent]
    assert run.all(Started)[0].version == can.version
    assert run.events() == ["RESUME", "SHUTDOWN"], "an event of a guest that ends at once was lost"


def test_the_guest_reboots_once_by_three_resets(can: Capabilities, tmp_path: Path) -> None:
    async def body(run: Run) -> None:
        await run.notice(Rebooted)
        for _ in range(3):  # the resets follow within milliseconds; QMP keeps their order
            await run.qemu.command("query-status")
        while run.events().count("RESET") < 3:
            await trio.lowlevel.checkpoint()
        await run.qemu.command("quit")

    ending, run = supervise(guest(can, tmp_path, REBOOT_THREE_TIMES), body)
    assert run.events().count("RESET") == 3
    assert run.all(Rebooted) == [Rebooted(by_guest=True, count=1)]
    assert ending.kind is EndKind.QUIT_FROM_OUTSIDE


def test_a_reboot_from_outside(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        await run.qemu.command("system_reset")
        await run.notice(Rebooted)
        run.qemu.send_signal(signal.SIGTERM)

    _, run = supervise(idle, body)
    assert run.all(Rebooted) == [Rebooted(by_guest=False, count=1)]


def test_reboot_ends_qemu_with_no_reboot(can: Capabilities, tmp_path: Path) -> None:
    ending, run = supervise(guest(can, tmp_path, REBOOT_THREE_TIMES, no_reboot=True))
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.REBOOTED, "guest-reset", 0)
    assert run.all(Rebooted) == []


@pytest.mark.parametrize("extra", [[], ["-action", "panic=exit-failure"]])
def test_the_guest_panics(can: Capabilities, tmp_path: Path, extra: list[str]) -> None:
    ending, run = supervise(guest(can, tmp_path, PANIC) + extra)
    assert (ending.kind, ending.exit_code) == (EndKind.PANICKED, 4)
    assert ending.code == (1 if extra else 0)
    assert len(run.all(Panicked)) == 1


# -- another program ends QEMU


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGTERM, EndKind.SIGNALLED, 0),
        (signal.SIGINT, EndKind.SIGNALLED, 0),
        (signal.SIGHUP, EndKind.SIGNALLED, 0),
        (signal.SIGKILL, EndKind.CRASHED, -9),
        (signal.SIGSEGV, EndKind.CRASHED, -11),
        (signal.SIGABRT, EndKind.CRASHED, -6),
    ],
)
def test_a_signal_from_outside(idle: list[str], number: signal.Signals, kind: EndKind, code: int) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        os.kill(run.qemu.pid, number)

    ending, _ = supervise(idle, body)
    assert (ending.kind, ending.code, ending.stage) == (kind, code, None)
    if kind is EndKind.CRASHED:
        assert ending.report().endswith(format_command(idle)), "the command to paste has arguments that we added"
    else:
        assert f"terminating on signal {number.value}" in ending.report()


def test_quit_from_outside(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        await run.qemu.command("quit")

    ending, _ = supervise(idle, body)
    assert (ending.kind, ending.exit_code) == (EndKind.QUIT_FROM_OUTSIDE, 6)


# -- we end QEMU


def test_stopping_a_guest_that_ignores_everything(idle: list[str]) -> None:
    async def poweroff() -> None:
        await trio.lowlevel.checkpoint()

    async def body(run: Run) -> None:
        await run.notice(Started)
        assert (await run.qemu.stop(poweroff, grace=SHORT)).kind is EndKind.STOPPED

    ending, run = supervise(idle, body)
    assert (ending.kind, ending.stage, ending.reason) == (EndKind.STOPPED, Stage.QUIT, "host-qmp-quit")
    assert [begun.stage for begun in run.all(StageBegun)] == [Stage.POWEROFF, Stage.POWERDOWN, Stage.QUIT]
    assert run.events().count("POWERDOWN") == 2
    assert run.all(StageBegun)[1].why == "QEMU still ran after 0.3 s"


def test_stopping_by_the_guests_own_power_off(can: Capabilities, tmp_path: Path) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        await run.qemu.stop(lambda: run.qemu.command("send-key", keys=[{"type": "qcode", "data": "q"}]))

    ending, run = supervise(guest(can, tmp_path, POWER_OFF_AT_A_KEY), body)
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.STOPPED, "guest-shutdown", 0)
    assert str(ending) == "stopped, by the guest's own power-off, through the vchannel"
    assert [begun.stage for begun in run.all(StageBegun)] == [Stage.POWEROFF]


def test_stopping_a_stopped_process(idle: list[str]) -> None:
    """QMP hangs and SIGTERM stays pending, so only SIGKILL ends QEMU."""
    clock = MockClock(rate=1.0)

    async def body(run: Run) -> None:
        await run.notice(Started)
        os.kill(run.qemu.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run.qemu.stop(trio.sleep_forever, grace=grace_of(1000, 1000, 1000, 5)))
            await wait_all_tasks_blocked()
            clock.jump(ANSWER_TIMEOUT)
            await run.notice(StageBegun, lambda begun: begun.stage is Stage.TERMINATE)
            await wait_all_tasks_blocked()
            clock.jump(5)

    ending, run = supervise(idle, body, clock=clock)
    assert (ending.kind, ending.stage, ending.exit_code) == (EndKind.KILLED, Stage.KILL, 8)
    assert [begun.stage for begun in run.all(StageBegun)] == [Stage.TERMINATE, Stage.KILL]


def test_second_request_skips_to_the_next_stage(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        run.qemu.hurry()  # nothing to hurry yet
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run.qemu.stop(trio.sleep_forever, grace=grace_of(1000, 1000, 5, 5)))
            await run.notice(StageBegun)
            run.qemu.hurry()
            assert (await run.qemu.stop()).kind is EndKind.STOPPED, "the second stop did not wait for the first"

    ending, run = supervise(idle, body)
    assert ending.stage is Stage.QUIT
    assert [(begun.stage, begun.why) for begun in run.all(StageBegun)] == [
        (Stage.POWEROFF, "asked to stop"), (Stage.QUIT, "asked again"),
    ]  # fmt: skip


def test_a_cancelled_stop_can_be_repeated(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        with trio.move_on_after(0.1):
            await run.qemu.stop(trio.sleep_forever, grace=grace_of(1000, 1000, 5, 5))
        assert run.qemu.ending is None
        await run.qemu.stop(grace=grace_of(0, 0.1, 30, 30))

    assert supervise(idle, body)[0].kind is EndKind.STOPPED


@pytest.mark.any_qemu
def test_stopping_a_qemu_that_has_ended(can: Capabilities, tmp_path: Path) -> None:
    async def body(run: Run) -> None:
        await run.qemu.wait()
        assert (await run.qemu.stop()).kind is EndKind.POWERED_OFF
        with pytest.raises(QmpError):
            await run.qemu.command("query-status")
        run.qemu.send_signal(signal.SIGTERM)

    supervise(guest(can, tmp_path, POWER_OFF), body)


@pytest.mark.any_qemu
def test_being_cancelled_kills(idle: list[str]) -> None:
    run = Run(idle)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(run.qemu.run)
            await run.notice(Started)
            nursery.cancel_scope.cancel()

    run_in_real_time(main)
    assert run.qemu.ending
    assert (run.qemu.ending.kind, run.qemu.ending.code) == (EndKind.KILLED, -9)


# -- QMP


def test_rejected_command_does_not_affect_qemu(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        with pytest.raises(QmpCommandError):
            await run.qemu.command("fly")
        await run.qemu.stop(grace=SHORT)

    assert supervise(idle, body)[0].kind is EndKind.STOPPED


def test_losing_qmp_is_reported_and_signals_still_stop(idle: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vhostcomm.qemu.supervise.LAST_WORDS", 0.1)
    genuine, copies = socket.socketpair, list[socket.socket]()

    def socketpair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = genuine()
        copies.append(theirs.dup())
        return ours, theirs

    monkeypatch.setattr(socket, "socketpair", socketpair)

    async def body(run: Run) -> None:
        await run.notice(Started)
        copies[-1].sendall(b"junk\n")  # as if QEMU had said so
        for copy in copies:
            copy.close()
        lost = await run.notice(QmpLost)
        assert "not a message of QMP: b'junk'" in lost.why
        with pytest.raises(QmpError, match="not a message of QMP"):
            await run.qemu.command("query-status")
        await run.qemu.stop(trio.sleep_forever)

    ending, run = supervise(idle, body)
    assert [begun.stage for begun in run.all(StageBegun)] == [Stage.TERMINATE]
    assert ending.code == 0
