"""A QEMU that does not start."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.deny import CLONE3
from tests.qemu.running import SHORT, Run, supervise
from vhostcomm.linux.system_errors import NO_THREAD
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import Ending, EndKind, Stage
from vhostcomm.qemu.machine import Disk, Machine
from vhostcomm.qemu.qmp import QmpError
from vhostcomm.qemu.stopping import StageBegun
from vhostcomm.qemu.supervise import START_TIMEOUT, OutputLine, Qemu, Started

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-no-such-option"], "-no-such-option: invalid option"),
        (["-device", "no-such-device"], "'no-such-device' is not a valid device model name"),
        (["-machine", "pc-0.1"], "unsupported machine type"),
    ],
)
def test_a_bad_option(idle: list[str], arguments: list[str], said: str) -> None:
    async def body(run: Run) -> None:
        await run.qemu.wait()
        assert run.all(Started) == []

    ending, run = supervise([*idle, *arguments], body)
    assert (ending.kind, ending.code, ending.exit_code) == (EndKind.FAILED_TO_START, 1, 3)
    assert said in "\n".join(ending.last_lines)
    assert said in run.all(OutputLine)[-1].text or said in run.all(OutputLine)[0].text
    assert ending.report().startswith("QEMU did not start: exit code 1\n  QEMU's last output:\n")


def test_missing_disk_is_reported(can: Capabilities, tmp_path: Path) -> None:
    ending, _ = supervise(build(Machine(boot=Disk(str(tmp_path / "a,b.img"))), can))
    assert ending.kind is EndKind.FAILED_TO_START
    assert f"Could not open '{tmp_path / 'a,b.img'}': No such file or directory" in ending.report()


def test_a_disk_that_is_in_use(can: Capabilities, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 16))
    argv = build(Machine(memory=32, boot=Disk(str(disk))), can)

    async def body(run: Run) -> None:
        await run.notice(Started)
        second = Qemu(argv, lambda _: None)
        assert 'Failed to get "write" lock' in (await second.run()).report()
        await run.qemu.stop(grace=SHORT)

    assert supervise(argv, body)[0].kind is EndKind.STOPPED


@pytest.mark.parametrize("error", [errno.EPERM, errno.EAGAIN])
def test_denied_thread_is_reported_with_its_remedy(idle: list[str], error: int) -> None:
    """An old container engine's filter or the limit of processes denies it. QEMU's own message has no remedy."""
    ending, _ = supervise([sys.executable, "-m", "tests.deny", CLONE3, str(error), *idle])
    assert ending.kind is EndKind.FAILED_TO_START
    assert "qemu_thread_create" in "\n".join(ending.last_lines)
    assert f"\n  {NO_THREAD}\n" in ending.report()


def test_no_program() -> None:
    ending, _ = supervise(["/no/such/qemu"])
    assert (ending.kind, ending.code) == (EndKind.FAILED_TO_START, 126)
    assert "/no/such/qemu: No such file or directory" in ending.report()


def test_a_program_that_never_answers() -> None:
    run = Run(["sh", "-c", "echo thinking; exec sleep 1000"])
    clock = MockClock(rate=1)

    async def main() -> Ending:
        async with trio.open_nursery() as nursery:
            await nursery.start(run.qemu.run)
            await run.notice(OutputLine)
            clock.jump(START_TIMEOUT)
            return await run.qemu.wait()

    ending = trio.run(main, clock=clock)
    assert ending.kind is EndKind.FAILED_TO_START
    assert "(no QMP greeting within 120 s" in str(ending)
    assert ending.last_lines == ("thinking",)


def test_a_program_that_hangs_up() -> None:
    ending, _ = supervise([sys.executable, "-c", "import os, time; os.closerange(3, 100); time.sleep(1000)"])
    assert (ending.kind, ending.why) == (EndKind.FAILED_TO_START, "QEMU closed the QMP connection")


def test_qemu_that_has_not_answered_yet_is_stopped() -> None:
    async def body(run: Run) -> None:
        await run.notice(OutputLine)
        with pytest.raises(QmpError, match="QEMU has not answered yet"):
            await run.qemu.command("query-status")
        await run.qemu.stop()

    ending, run = supervise(["sh", "-c", "echo thinking; exec sleep 1000"], body)
    assert (ending.kind, ending.code) == (EndKind.STOPPED, -15)
    assert [begun.stage for begun in run.all(StageBegun)] == [Stage.TERMINATE]


@pytest.mark.any_qemu
def test_second_run_of_one_object_is_rejected(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        with pytest.raises(RuntimeError, match="make another Qemu"):
            await run.qemu.run()
        await run.notice(Started)
        await run.qemu.stop(grace=SHORT)

    assert supervise(idle, body)[0].kind is EndKind.STOPPED


def test_qemu_has_no_pid_before_it_runs(idle: list[str]) -> None:
    qemu = Qemu(idle, lambda _: None)
    with pytest.raises(RuntimeError, match=r"await nursery\.start\(qemu\.run\)"):
        _ = qemu.pid
