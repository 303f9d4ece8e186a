"""Hooks: their process group ends with them, and they inherit no secret."""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import trio

import vhostcomm.launcher.hooks
from tests.trio_help import run_in_real_time
from vhostcomm.launcher.hooks import RUNNING_LIMIT, Hooks
from vhostcomm.text import escape


def script(folder: Path, text: str) -> str:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@contextmanager
def fifo(folder: Path) -> Iterator[int]:
    """A pipe named "pipe", for hooks to write to. Reading reaches its end when no process has it open any longer."""
    path = folder / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def closes(descriptor: int) -> bytes:
    """Everything written, up to the end of the last process that has the pipe open."""
    written = b""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    while poller.poll(20_000):
        piece = os.read(descriptor, 4096)
        if not piece:
            return written
        written += piece
    raise AssertionError(f"a process still has the pipe open; it wrote {written!r}")


def run_hook(program: str, timeout: float = 20.0, **facts: str) -> list[dict[str, object]]:
    """Run one hook as the launcher does; returns what was logged."""

    async def main() -> list[dict[str, object]]:
        with structlog.testing.capture_logs() as logged:
            hooks = Hooks([("ready", program)], {"guest": "nas"}, structlog.get_logger())
            async with trio.open_nursery() as nursery:
                hooks.nursery = nursery
                hooks.happened("ready", **facts)
                await hooks.finish(timeout)
                nursery.cancel_scope.cancel()
        return [dict(each) for each in logged]

    return run_in_real_time(main)


def test_background_processes_end_with_their_hook(tmp_path: Path) -> None:
    program = script(tmp_path, f"exec > {tmp_path}/pipe; sleep 1000 & echo left")
    with fifo(tmp_path) as pipe:
        assert run_hook(program) == []
        assert closes(pipe) == b"left\n"


def test_descendants_end_when_their_hook_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vhostcomm.launcher.hooks, "TIMEOUT", 0.5)
    program = script(tmp_path, f"exec > {tmp_path}/pipe; sh -c 'sleep 1000 & echo begun; wait' & wait")
    with fifo(tmp_path) as pipe:
        (line,) = run_hook(program)
        assert line["event"] == "hook timed out and was killed"
        assert closes(pipe) == b"begun\n"


def test_descendants_end_with_the_launcher(tmp_path: Path) -> None:
    program = script(tmp_path, f"exec > {tmp_path}/pipe; sh -c 'sleep 1000 & echo begun; wait' & wait")
    with fifo(tmp_path) as pipe:
        (line,) = run_hook(program, timeout=0.5)
        assert line["event"] == "hooks killed at the end"
        assert closes(pipe) == b"begun\n"


def test_a_separate_session_outlives_its_hook(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begin = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    program = script(
        tmp_path, f"setsid sh -c '{begin}' > /dev/null 2>&1 & until [ -e {pid_file} ]; do sleep 0.01; done"
    )
    run_hook(program)
    alive = os.pidfd_open(int(pid_file.read_text()))
    with os.fdopen(alive, "rb"):
        ended, _, _ = select.select([alive], [], [], 0)
        signal.pidfd_send_signal(alive, signal.SIGKILL)
    assert not ended


def test_output_that_a_separate_session_keeps_open_is_not_awaited(tmp_path: Path) -> None:
    told = tmp_path / "told"
    begin = f"echo $$ > {told}.new; mv {told}.new {told}; exec sleep 1000"
    program = script(tmp_path, f"setsid sh -c '{begin}' & until [ -e {told} ]; do sleep 0.01; done; echo said; exit 3")
    (line,) = run_hook(program)
    os.kill(int(told.read_text()), signal.SIGKILL)
    assert (line["event"], line["status"], line["output"]) == ("hook failed", 3, "said")


def test_log_has_the_end_of_a_long_output(tmp_path: Path) -> None:
    program = script(tmp_path, "yes 'a line' | head -n 1000; echo the reason; exit 3")
    (line,) = run_hook(program)
    output = str(line["output"])
    assert output.endswith("a line\\na line\\nthe reason")
    assert escape(output) == output, "the log shows all of it"


def test_concurrent_hooks_are_limited(tmp_path: Path) -> None:
    """An event over the limit starts no hook; a hook that ends makes room."""
    program = script(tmp_path, f"read line < {tmp_path}/pipe; echo $VHOSTCOMM_HOOK_NUMBER >> {tmp_path}/ran")
    os.mkfifo(tmp_path / "pipe")
    lines = os.open(tmp_path / "pipe", os.O_RDWR)

    async def main() -> list[tuple[object, object]]:
        with structlog.testing.capture_logs() as logged:
            hooks = Hooks([("ready", program)], {}, structlog.get_logger())
            async with trio.open_nursery() as nursery:
                hooks.nursery = nursery
                for numbers in (range(RUNNING_LIMIT + 1), range(100, 101)):
                    for number in numbers:
                        hooks.happened("ready", number=str(number))
                    os.write(lines, b"\n" * min(len(numbers), RUNNING_LIMIT))
                    await hooks.finish(50.0)
                nursery.cancel_scope.cancel()
        return [(each["event"], each.get("why")) for each in logged]

    try:
        assert run_in_real_time(main) == [("hook skipped", f"{RUNNING_LIMIT} already run")]
    finally:
        os.close(lines)
    ran = sorted(map(int, (tmp_path / "ran").read_text().split()))
    assert ran == [*range(RUNNING_LIMIT), 100]


def test_hook_does_not_inherit_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHOSTCOMM_CONTROL_TOKEN", "a-long-random-secret")
    monkeypatch.setenv("VHOSTCOMM_GUEST_SERIAL", "1234ABC567890")
    run_hook(script(tmp_path, f"env > {tmp_path}/environment"), serial="1234ABC567890")
    environment = (tmp_path / "environment").read_text()
    assert "a-long-random-secret" not in environment
    assert sorted(re.findall("^VHOSTCOMM_.*", environment, re.MULTILINE)) == [
        "VHOSTCOMM_GUEST_SERIAL=1234ABC567890", "VHOSTCOMM_HOOK_EVENT=ready", "VHOSTCOMM_HOOK_GUEST=nas",
        "VHOSTCOMM_HOOK_SERIAL=1234ABC567890",
    ]  # fmt: skip
