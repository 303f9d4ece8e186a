"""Real QEMUs, with guests of a few bytes."""

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
from tests.qemu.running import SHORT, Run, guest, supervise
from tests.trio_help import run_in_real_time
from vhostcomm.qemu.argv import format_command
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import EndKind, Stage
from vhostcomm.qemu.qmp import ANSWER_TIMEOUT, QmpCommandError, QmpError, QmpEvent
from vhostcomm.qemu.stopping import Grace, StageBegun
from vhostcomm.qemu.supervise import Panicked, QmpLost, Rebooted, Started

pytestmark = pytest.mark.usefixtures("nothing_left")


# -- the guest ends it


def test_the_guest_powers_off(can: Capabilities, tmp_path: Path) -> None:
    ending, told = supervise(guest(can, tmp_path, POWER_OFF))
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.POWERED_OFF, "guest-shutdown", 0)
    assert [type(notice) for notice in told.told][:2] == [Started, QmpEvent]
    assert told.all(Started)[0].version == can.version
    assert told.events() == ["RESUME", "SHUTDOWN"], "nothing is missed of a guest that ends at once"


def test_the_guest_reboots_once_by_three_resets(can: Capabilities, tmp_path: Path) -> None:
    async def body(told: Run) -> None:
        await told.tells(Rebooted)
        for _ in range(3):  # its resets come within milliseconds; QMP keeps their order
            await told.qemu.command("query-status")
        while told.events().count("RESET") < 3:
            await trio.lowlevel.checkpoint()
        await told.qemu.command("quit")

    ending, told = supervise(guest(can, tmp_path, REBOOT_THREE_TIMES), body)
    assert told.events().count("RESET") == 3
    assert told.all(Rebooted) == [Rebooted(by_guest=True, count=1)]
    assert ending.kind is EndKind.QUIT_FROM_OUTSIDE


def test_a_reboot_from_outside(idle: list[str]) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        await told.qemu.command("system_reset")
        await told.tells(Rebooted)
        told.qemu.send_signal(signal.SIGTERM)

    _, told = supervise(idle, body)
    assert told.all(Rebooted) == [Rebooted(by_guest=False, count=1)]


def test_a_reboot_ends_it_where_that_is_wanted(can: Capabilities, tmp_path: Path) -> None:
    ending, told = supervise(guest(can, tmp_path, REBOOT_THREE_TIMES, no_reboot=True))
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.REBOOTED, "guest-reset", 0)
    assert told.all(Rebooted) == []


@pytest.mark.parametrize("extra", [[], ["-action", "panic=exit-failure"]])
def test_the_guest_panics(can: Capabilities, tmp_path: Path, extra: list[str]) -> None:
    ending, told = supervise(guest(can, tmp_path, PANIC) + extra)
    assert (ending.kind, ending.exit_code) == (EndKind.PANICKED, 4)
    assert ending.code == (1 if extra else 0)
    assert len(told.all(Panicked)) == 1


# -- somebody else ends it


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
    async def body(told: Run) -> None:
        await told.tells(Started)
        os.kill(told.qemu.pid, number)

    ending, _ = supervise(idle, body)
    assert (ending.kind, ending.code, ending.stage) == (kind, code, None)
    if kind is EndKind.CRASHED:
        assert ending.report().endswith(format_command(idle)), "the command to paste, without what we added"
    else:
        assert f"terminating on signal {number.value}" in ending.report()


def test_quit_from_outside(idle: list[str]) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        await told.qemu.command("quit")

    ending, _ = supervise(idle, body)
    assert (ending.kind, ending.exit_code) == (EndKind.QUIT_FROM_OUTSIDE, 6)


# -- we end it


def test_stopping_a_guest_that_ignores_everything(idle: list[str]) -> None:
    async def poweroff() -> None:
        await trio.lowlevel.checkpoint()

    async def body(told: Run) -> None:
        await told.tells(Started)
        assert (await told.qemu.stop(poweroff, grace=SHORT)).kind is EndKind.STOPPED

    ending, told = supervise(idle, body)
    assert (ending.kind, ending.stage, ending.reason) == (EndKind.STOPPED, Stage.QUIT, "host-qmp-quit")
    assert [begun.stage for begun in told.all(StageBegun)] == [Stage.POWEROFF, Stage.POWERDOWN, Stage.QUIT]
    assert told.events().count("POWERDOWN") == 2
    assert told.all(StageBegun)[1].why == "QEMU still ran after 0.3 s"


def test_stopping_by_the_guests_own_power_off(can: Capabilities, tmp_path: Path) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        await told.qemu.stop(lambda: told.qemu.command("send-key", keys=[{"type": "qcode", "data": "q"}]))

    ending, told = supervise(guest(can, tmp_path, POWER_OFF_AT_A_KEY), body)
    assert (ending.kind, ending.reason, ending.exit_code) == (EndKind.STOPPED, "guest-shutdown", 0)
    assert str(ending) == "stopped, by the guest's own power-off, through the vchannel"
    assert [begun.stage for begun in told.all(StageBegun)] == [Stage.POWEROFF]


def test_stopping_a_stopped_process(idle: list[str]) -> None:
    """QMP hangs and SIGTERM waits: it is still killed."""
    clock = MockClock(rate=1.0)

    async def body(told: Run) -> None:
        await told.tells(Started)
        os.kill(told.qemu.pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: told.qemu.stop(trio.sleep_forever, grace=Grace(1000, 1000, 1000, 5)))
            await wait_all_tasks_blocked()
            clock.jump(ANSWER_TIMEOUT)
            await told.tells(StageBegun, lambda begun: begun.stage is Stage.TERMINATE)
            await wait_all_tasks_blocked()
            clock.jump(5)

    ending, told = supervise(idle, body, clock=clock)
    assert (ending.kind, ending.stage, ending.exit_code) == (EndKind.KILLED, Stage.KILL, 8)
    assert [begun.stage for begun in told.all(StageBegun)] == [Stage.TERMINATE, Stage.KILL]


def test_a_second_request_hurries(idle: list[str]) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        told.qemu.hurry()  # nothing to hurry yet
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: told.qemu.stop(trio.sleep_forever, grace=Grace(1000, 1000, 5, 5)))
            await told.tells(StageBegun)
            told.qemu.hurry()
            assert (await told.qemu.stop()).kind is EndKind.STOPPED, "another stop waits for the first"

    ending, told = supervise(idle, body)
    assert ending.stage is Stage.QUIT
    assert [(begun.stage, begun.why) for begun in told.all(StageBegun)] == [
        (Stage.POWEROFF, "asked to stop"), (Stage.QUIT, "asked again"),
    ]  # fmt: skip


def test_a_cancelled_stop_can_be_repeated(idle: list[str]) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        with trio.move_on_after(0.1):
            await told.qemu.stop(trio.sleep_forever, grace=Grace(1000, 1000, 5, 5))
        assert told.qemu.ending is None
        await told.qemu.stop(grace=Grace(0, 0.1, 30, 30))

    assert supervise(idle, body)[0].kind is EndKind.STOPPED


@pytest.mark.any_qemu
def test_stopping_a_qemu_that_has_ended(can: Capabilities, tmp_path: Path) -> None:
    async def body(told: Run) -> None:
        await told.qemu.wait()
        assert (await told.qemu.stop()).kind is EndKind.POWERED_OFF
        with pytest.raises(QmpError):
            await told.qemu.command("query-status")
        told.qemu.send_signal(signal.SIGTERM)

    supervise(guest(can, tmp_path, POWER_OFF), body)


@pytest.mark.any_qemu
def test_being_cancelled_kills(idle: list[str]) -> None:
    told = Run(idle)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(told.qemu.run)
            await told.tells(Started)
            nursery.cancel_scope.cancel()

    run_in_real_time(main)
    assert told.qemu.ending
    assert (told.qemu.ending.kind, told.qemu.ending.code) == (EndKind.KILLED, -9)


# -- QMP


def test_a_refused_command_harms_nothing(idle: list[str]) -> None:
    async def body(told: Run) -> None:
        await told.tells(Started)
        with pytest.raises(QmpCommandError):
            await told.qemu.command("fly")
        await told.qemu.stop(grace=SHORT)

    assert supervise(idle, body)[0].kind is EndKind.STOPPED


def test_losing_qmp_is_reported_and_signals_still_stop(idle: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vhostcomm.qemu.supervise.LAST_WORDS", 0.1)
    genuine, copies = socket.socketpair, list[socket.socket]()

    def socketpair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = genuine()
        copies.append(theirs.dup())
        return ours, theirs

    monkeypatch.setattr(socket, "socketpair", socketpair)

    async def body(told: Run) -> None:
        await told.tells(Started)
        copies[-1].sendall(b"junk\n")  # as if QEMU had said so
        for copy in copies:
            copy.close()
        lost = await told.tells(QmpLost)
        assert "not a message of QMP: b'junk'" in lost.why
        with pytest.raises(QmpError, match="not a message of QMP"):
            await told.qemu.command("query-status")
        await told.qemu.stop(trio.sleep_forever)

    ending, told = supervise(idle, body)
    assert [begun.stage for begun in told.all(StageBegun)] == [Stage.TERMINATE]
    assert ending.code == 0
