"""A machine paused by QMP, a migration or its disks: its cause, its resumption, its stop."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.qemu.peers import Peer, play
from tests.qemu.roms import IDLE, SUSPEND_ONCE, WATCHDOG
from tests.qemu.running import SHORT, Run, grace_of, guest, supervise
from tests.trio_help import run as in_no_time
from tests.trio_help import run_in_real_time
from vhostcomm.errors import MachineError
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import EndKind
from vhostcomm.qemu.machine_watch import QUERY_DELAY, MachineNotice, MachineWatch, Paused, Rebooted, Resumed
from vhostcomm.qemu.monitor import Connected, Monitor, MonitorNotice
from vhostcomm.qemu.pause_cause import describe, failures_of
from vhostcomm.qemu.qmp import Qmp, QmpEvent
from vhostcomm.qemu.stopping import StageBegun
from vhostcomm.qemu.supervise import Started

# -- in QEMU


def test_stop_and_cont_by_qmp(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        assert await run.qemu.resume() is False, "the machine is not paused"
        await run.qemu.command("stop")
        notice = await run.notice(Paused)
        assert (notice.pause.status, notice.pause.cause) == ("paused", "a QMP or monitor client paused it")
        assert notice.pause.remedy_for("nas") == "vhostcomm resume nas"
        assert await run.qemu.resume() is True
        await run.notice(Resumed)
        await run.qemu.stop(grace=SHORT)

    ending, _ = supervise(idle, body)
    assert ending.kind is EndKind.STOPPED


@pytest.mark.parametrize(
    ("from_start", "cause"),
    [(False, "a QMP or monitor client paused it (paused)"), (True, "QEMU was started with -S (prelaunch)")],
)
def test_stop_of_a_paused_machine_fails(idle: list[str], *, from_start: bool, cause: str) -> None:
    async def ask() -> None:
        raise AssertionError("a paused guest is not asked")

    async def body(run: Run) -> None:
        await run.notice(Started)
        if not from_start:
            await run.qemu.command("stop")
        await run.qemu.stop(ask, grace=SHORT)

    ending, run = supervise(idle, body, paused=from_start)
    assert (ending.kind, ending.exit_code) == (EndKind.STOPPED_PAUSED, 9)
    assert "the guest did not shut down" in str(ending)
    (begun,) = run.all(StageBegun)
    assert begun.stage.name == "QUIT"
    assert begun.why == f"asked to stop; the machine is paused, so the guest can't shut down: {cause}"


def test_machine_paused_during_its_stop(idle: list[str]) -> None:
    """The stop does not wait for the rest of the guest's time."""

    async def body(run: Run) -> None:
        await run.notice(Started)

        async def ask() -> None:
            await run.qemu.command("stop")
            await trio.sleep_forever()

        await run.qemu.stop(ask, grace=grace_of(3600, 3600, 30, 30))

    ending, run = supervise(idle, body)
    assert ending.kind is EndKind.STOPPED_PAUSED
    assert [each.stage.name for each in run.all(StageBegun)] == ["POWEROFF", "QUIT"]


@pytest.mark.parametrize("by_us", [True, False])
def test_source_of_a_migration(idle: list[str], tmp_path: Path, *, by_us: bool) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "saved"))
        listener.listen()
        with listener:
            await run.qemu.command("migrate", uri=f"unix:{tmp_path}/saved")
            stream = await trio.SocketListener(trio.socket.from_stdlib_socket(listener)).accept()
            async with stream:
                async for _ in stream:
                    pass
        await run.notice(Paused, lambda each: each.pause.status == "postmigrate")
        with pytest.raises(MachineError, match="migrated to another QEMU, or saved to a file; end this QEMU"):
            await run.qemu.resume()
        if by_us:
            await run.qemu.stop(grace=SHORT)
        else:
            await run.qemu.command("quit")

    ending, _ = supervise(idle, body)
    assert (ending.kind, ending.exit_code) == (EndKind.MIGRATED, 10)


def test_sleeping_guest_is_woken_up(can: Capabilities, tmp_path: Path) -> None:
    async def body(run: Run) -> None:
        notice = await run.notice(Paused)
        assert (notice.pause.status, notice.pause.cause) == ("suspended", "the guest put itself to sleep")
        assert notice.pause.remedy_for("nas") == "wake it: vhostcomm resume nas"
        assert await run.qemu.resume() is True
        await run.notice(Resumed)
        await run.qemu.stop(grace=SHORT)

    ending, run = supervise(guest(can, tmp_path, SUSPEND_ONCE), body)
    assert ending.kind is EndKind.STOPPED
    assert run.events().count("SUSPEND") == run.events().count("WAKEUP") == 1


def test_sleeping_guest_is_woken_up_to_shut_down(can: Capabilities, tmp_path: Path) -> None:
    asked = []

    async def body(run: Run) -> None:
        async def ask() -> None:
            asked.append(await run.qemu.command("query-status"))

        await run.notice(Paused)
        await run.qemu.stop(ask, grace=SHORT)

    ending, run = supervise(guest(can, tmp_path, SUSPEND_ONCE), body)
    assert ending.kind is EndKind.STOPPED
    assert [each["running"] for each in asked] == [True]
    assert "the guest was suspended and is woken up first" in run.all(StageBegun)[0].why


def test_watchdog_that_pauses(can: Capabilities, tmp_path: Path) -> None:
    async def body(run: Run) -> None:
        notice = await run.notice(Paused)
        assert (notice.pause.status, notice.pause.cause) == ("watchdog", "its watchdog expired")
        assert notice.pause.remedy_for("nas") == "look at its console; then vhostcomm resume nas"
        assert await run.qemu.resume() is True
        await run.notice(Resumed)
        await run.qemu.stop(grace=SHORT)

    argv = [*guest(can, tmp_path, WATCHDOG), "-device", "ib700", "-action", "watchdog=pause"]
    ending, run = supervise(argv, body)
    assert ending.kind is EndKind.STOPPED
    assert "WATCHDOG" in run.events()


# -- with scripted answers in the place of QEMU

ENOSPC = {
    "device": "drive-userdata0", "node-name": "#block1", "operation": "write", "action": "stop", "nospace": True,
    "reason": "No space left on device",
}  # fmt: skip
BLOCKS = [
    {"device": "drive-synosys", "io-status": "ok", "inserted": {"file": "/disks/system.img"}},
    {"device": "drive-userdata0", "io-status": "nospace", "inserted": {"file": "/disks/data.img"}},
]
RUNS = {"status": "running", "running": True}
IO_ERROR = {"status": "io-error", "running": False}


def watched(answers: dict[str, list[Any]], events: list[tuple[str, dict[str, Any]]]) -> list[MachineNotice]:
    """Return the notices of a watch that receives these events and, for each command, these answers in order."""
    notices: list[MachineNotice] = []

    async def execute(name: str) -> Any:
        await trio.lowlevel.checkpoint()
        waiting = answers.get(name, [{}])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    async def main() -> None:
        watch = MachineWatch(execute, notices.append, running=True)
        async with trio.open_nursery() as nursery:
            for name, data in events:
                watch.handle(QmpEvent(name, data))
            nursery.start_soon(watch.run)
            await trio.sleep(2 * QUERY_DELAY)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    in_no_time(main)
    return notices


def test_full_disk_is_named_with_its_remedy() -> None:
    notices = watched({"query-status": [IO_ERROR], "query-block": [BLOCKS]}, [("BLOCK_IO_ERROR", ENOSPC), ("STOP", {})])
    (paused,) = notices
    assert isinstance(paused, Paused)
    assert paused.pause.cause == "no space is left for disk /disks/data.img (nospace)"
    assert paused.pause.remedy_for("nas") == "free space for /disks/data.img; then vhostcomm resume nas"


@pytest.mark.parametrize(("last", "reported"), [("RESUME", [Resumed()]), ("SHUTDOWN", [])])
def test_qemu_is_not_queried_if_it_runs_again_or_ends(last: str, reported: list[MachineNotice]) -> None:
    """A command at the end of QEMU 7.2 can keep QEMU from ending."""
    assert watched({"query-status": [IO_ERROR]}, [("STOP", {}), (last, {})]) == reported


def test_three_resets_are_one_reboot() -> None:
    reported: list[tuple[float, MachineNotice]] = []

    async def main() -> None:
        start = trio.current_time()

        def report(notice: MachineNotice) -> None:
            reported.append((round(trio.current_time() - start, 3), notice))

        async def execute(name: str) -> None:
            raise AssertionError(name)

        watch = MachineWatch(execute, report, running=True)
        for at in (10.0, 10.1, 10.6, 11.0, 11.5, 100.0):
            await trio.sleep_until(start + at)
            watch.handle(QmpEvent("RESET", {"guest": at < 100}))

    in_no_time(main)
    assert reported == [(10.0, Rebooted(True, 1)), (11.0, Rebooted(True, 2)), (100.0, Rebooted(False, 3))]


def test_failed_resume_is_reported() -> None:
    async def script(peer: Peer) -> None:
        for command, answer in (
            ("query-status", IO_ERROR), ("query-block", BLOCKS), ("cont", {}),
        ):  # fmt: skip
            heard = await peer.answer(answer)
            assert heard["execute"] == command
        await peer.say({"event": "RESUME"}, {"event": "BLOCK_IO_ERROR", "data": ENOSPC}, {"event": "STOP"})
        await peer.answer(IO_ERROR)
        await peer.answer(BLOCKS)

    async def body(qmp: Qmp) -> None:
        watch = MachineWatch(qmp.execute, lambda _: None)
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                async for event in qmp.events:
                    watch.handle(event)

            nursery.start_soon(follow)
            with pytest.raises(MachineError) as caught:
                await watch.resume()
            nursery.cancel_scope.cancel()
        assert caught.value.what == "paused again"
        assert caught.value.why.startswith("it stopped again at once: no space is left for disk /disks/data.img")

    play(script, body)


@pytest.mark.parametrize(
    "blocks",
    [None, {}, [None], [{}], [{"io-status": "nospace"}], [{"io-status": ["nospace"]}],
     [{"io-status": "failed", "device": 5, "qdev": [], "inserted": "x"}],
     [{"io-status": "failed", "device": "\x1b]0;{guest}\x07" * 1000}] * 1000],
)  # fmt: skip
def test_any_answer_to_query_block(blocks: Any) -> None:
    pause = describe("io-error", failures_of(blocks, {}))
    text = f"{pause.cause} {pause.remedy_for('nas')}"
    assert text.isprintable()
    assert len(text) < 8000


# -- a QEMU that another program runs


def test_monitor_follows_a_qemu_and_its_next_one(can: Capabilities, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    argv = [*guest(can, tmp_path, IDLE), "-qmp", f"unix:{path},server=on,wait=off"]

    async def main() -> None:
        send, receive = trio.open_memory_channel[MonitorNotice](100)
        monitor = Monitor(str(path), send.send_nowait)

        async def expect(kind: type) -> MonitorNotice:
            while not isinstance(notice := await receive.receive(), kind):
                pass
            return notice

        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run)
            for _ in range(2):
                qemu = Run(argv)
                await nursery.start(qemu.qemu.run)
                await expect(Connected)
                await qemu.qemu.command("stop")
                paused = await expect(Paused)
                assert isinstance(paused, Paused)
                assert paused.pause.status == "paused"
                assert await monitor.resume() is True
                await expect(Resumed)
                await qemu.qemu.stop(grace=SHORT)
            with pytest.raises(MachineError):
                await monitor.resume()
            nursery.cancel_scope.cancel()

    run_in_real_time(main)


def test_second_client_of_one_socket_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU greets the second client only after the first has left."""
    monkeypatch.setattr("vhostcomm.qemu.monitor.GREETING_TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "qmp"))
        busy.listen()

        async def main() -> str:
            send, receive = trio.open_memory_channel[Any](10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Monitor(str(tmp_path / "qmp"), send.send_nowait).run)
                lost = await receive.receive()
                nursery.cancel_scope.cancel()
            return str(lost.why)

        why = run_in_real_time(main)
    assert "already has another QMP client: give vhostcomm its own QMP socket" in why


def test_timestamp_of_400_digits_does_not_end_a_monitor(tmp_path: Path) -> None:
    async def main() -> None:
        send, receive = trio.open_memory_channel[Any](10)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "qmp"))
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Monitor(str(tmp_path / "qmp"), send.send_nowait).run)
            stream = await trio.SocketListener(trio.socket.from_stdlib_socket(listener)).accept()
            peer = Peer(stream)
            await peer.greet()
            await peer.answer(RUNS)
            at = {"seconds": json.loads("9" * 400), "microseconds": 0}
            await peer.say({"event": "STOP", "timestamp": at})
            await peer.answer({"status": "paused", "running": False})
            assert isinstance(await receive.receive(), Connected)
            assert isinstance(await receive.receive(), Paused)
            await stream.aclose()
            nursery.cancel_scope.cancel()
        listener.close()

    run_in_real_time(main)
