"""Child processes, with shells and Pythons instead of QEMU."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.trio_help import run_in_real_time
from vhostcomm.errors import QemuError
from vhostcomm.qemu import child
from vhostcomm.qemu.child import Child, spawn

pytestmark = pytest.mark.usefixtures("nothing_left")


def lines_of(*argv: str) -> tuple[int, list[str], Child]:
    """Return the exit code of a program and the lines of its output."""
    lines: list[str] = []

    async def main() -> tuple[int, list[str], Child]:
        async with spawn(argv) as process:
            await process.read_output(lines.append)
            return await process.wait(), lines, process

    return run_in_real_time(main)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", -11), ("kill -KILL $$", -9), ("kill -PIPE $$", -13)],
)
def test_exit_code_is_returned(command: str, code: int) -> None:
    found, _, process = lines_of("sh", "-c", command)
    assert found == code == process.code


def test_secrets_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOSTCOMM_CONTROL_TOKEN", "a-long-random-secret")
    monkeypatch.setenv("VHOSTCOMM_GUEST_SERIAL", "1234ABC567890")
    lines = lines_of("env")[1]
    assert "VHOSTCOMM_GUEST_SERIAL=1234ABC567890" in lines
    assert "a-long-random-secret" not in "".join(lines)


def test_standard_output_and_error_are_read_in_order() -> None:
    assert lines_of("sh", "-c", "echo a; echo b >&2; echo c; printf d")[1] == ["a", "b", "c", "d"]


def test_output_is_escaped() -> None:
    assert lines_of("printf", r"\033[31mred\r\nt\tb \303\274 \377\n")[1] == [r"\x1b[31mred", r"t\tb ü \xff"]


def test_last_lines_are_kept_and_long_lines_are_cut() -> None:
    _, lines, process = lines_of(
        "sh", "-c", f"seq 100; head -c {3 * child.LINE_LIMIT} /dev/zero | tr '\\0' x; echo; echo end"
    )
    assert process.tail == tuple(lines[-child.TAIL_LINES :])
    assert lines[:100] == [str(n) for n in range(1, 101)]
    assert lines[-1] == "end"
    assert max(map(len, lines)) <= child.LINE_LIMIT


def test_missing_program_is_reported() -> None:
    code, lines, _ = lines_of("/no/such/program")
    assert code == 126
    assert lines == ["vhostcomm: /no/such/program: No such file or directory"]


def test_child_has_its_own_session_and_empty_input() -> None:
    code, lines, process = lines_of("sh", "-c", "ps -o sid= -p $$; cat; echo end")
    assert code == 0
    assert [int(lines[0]), lines[1]] == [process.pid, "end"]


def test_child_inherits_only_passed_descriptors() -> None:
    reading, writing = os.pipe()
    listing = "import os; print(sorted(os.listdir('/proc/self/fd')))"

    async def main() -> list[str]:
        lines: list[str] = []
        async with spawn([sys.executable, "-c", listing], pass_fds=[writing]) as process:
            await process.read_output(lines.append)
            await process.wait()
        return lines

    lines = run_in_real_time(main)
    os.close(reading)
    os.close(writing)
    assert lines == [str(sorted(["0", "1", "2", str(writing), "3" if writing != 3 else "4"]))]


def test_signals_that_python_ignores_are_not_ignored_in_a_child() -> None:
    status = lines_of("grep", "SigIgn", "/proc/self/status")[1][0]
    ignored = int(status.removeprefix(r"SigIgn:\t"), 16)
    # 32 and 33 are reserved by glibc: no program can set them, and some inherit them ignored.
    assert ignored & ~(0b11 << 31) == 0


def ended_by(body: Callable[[Child], Awaitable[None]]) -> int:
    """Return the exit code of a `sleep` after the block has ended."""

    async def main() -> int:
        async with spawn(["sleep", "1000"]) as process:
            await body(process)
        assert process.code is not None
        return process.code

    return run_in_real_time(main)


def test_end_of_the_block_kills_the_child() -> None:
    async def body(_: Child) -> None:
        pass

    assert ended_by(body) == -signal.SIGKILL


def test_error_in_the_block_kills_the_child() -> None:
    seen: list[Child] = []

    async def body(process: Child) -> None:
        seen.append(process)
        raise OSError("of the block")

    with pytest.raises(OSError, match="of the block"):
        ended_by(body)
    assert seen[0].code == -signal.SIGKILL


def test_cancellation_kills_and_reaps_the_child() -> None:
    async def main() -> Child:
        with trio.CancelScope() as scope:
            async with spawn(["sleep", "1000"]) as process:
                scope.cancel()
                await process.wait()
        return process

    assert run_in_real_time(main).code == -signal.SIGKILL


def test_stopped_child_is_killed() -> None:
    async def body(process: Child) -> None:
        process.send_signal(signal.SIGSTOP)

    assert ended_by(body) == -signal.SIGKILL


def test_signal_after_the_childs_end_is_ignored() -> None:
    async def main() -> int:
        async with spawn(["true"]) as process:
            await trio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            process.send_signal(signal.SIGTERM)  # ended, and not reaped yet
            code = await process.wait()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == code, "the second wait returned another code"
            return code

    assert run_in_real_time(main) == 0


def test_waiting_for_the_last_output_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild may keep the pipe open."""
    monkeypatch.setattr(child, "LAST_WORDS", 0.2)

    async def main() -> tuple[str, ...]:
        async with spawn(["sh", "-c", "sleep 1000 & echo $!"]) as process, trio.open_nursery() as nursery:
            nursery.start_soon(process.read_output, lambda _: None)
            await process.last_words()
            nursery.cancel_scope.cancel()
        return process.tail

    tail = run_in_real_time(main)
    assert len(tail) == 1, "the output was not read before the limit"
    os.kill(int(tail[0]), signal.SIGKILL)  # fails if it has ended: only a running grandchild keeps the pipe open


def test_an_ignored_sigchld_is_reset() -> None:
    """If the parent ignores SIGCHLD, the kernel discards exit codes."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert lines_of("sh", "-c", "exit 7")[0] == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_starting_a_child_in_another_thread_is_rejected() -> None:
    """The kernel would kill the child at the end of the thread that started it."""
    raised: list[BaseException] = []

    async def main() -> None:
        async with spawn(["true"]):
            pass

    def elsewhere() -> None:
        try:
            trio.run(main)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "outside the main thread" in str(raised[0])


def test_child_ends_if_its_parent_has_ended() -> None:
    """The parent ended between the fork and the request for a death signal, so no signal will come."""
    step = child._STEP

    async def main() -> tuple[int, tuple[str, ...]]:
        async with spawn([sys.executable, "-I", "-S", "-c", step, "1", "sleep", "1000"]) as process:
            await process.read_output(lambda _: None)
            return await process.wait(), process.tail

    assert run_in_real_time(main) == (126, ("vhostcomm: the supervisor is gone",))


def test_kernel_without_pidfds_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(QemuError, match=r"Linux 5\.3 or later is needed"):
        lines_of("sleep", "1000")


def test_failure_to_start_a_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(QemuError, match="true can't be started: No such file or directory"):
        lines_of("true")
