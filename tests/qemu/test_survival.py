"""QEMU never outlives its supervisor, and a Ctrl-C at the supervisor's terminal does not kill it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.qemu.roms import IDLE, rom
from tests.serving import TIMEOUT, line_from, main_threads_children, started
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.machine import Machine, SerialTerminal

pytestmark = pytest.mark.usefixtures("nothing_left")

ROOT = Path(__file__).parents[2]

PROMISED = 1.0
"""Seconds until QEMU has ended after its supervisor. The kernel needs 0.01."""


@contextmanager
def supervisor(mode: str, argv: list[str], terminal: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with started(
        [sys.executable, "-m", "tests.qemu.supervisor", mode, *argv],
        stdin=terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}"},
        bufsize=0,
        start_new_session=True,
    ) as process:
        yield process


@contextmanager
def watched(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def ends_within(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.any_qemu
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_qemu_ends_with_its_supervisor(can: Capabilities, tmp_path: Path, number: signal.Signals, state: str) -> None:
    """QEMU also outlives trio's idle threads, which end after 10 s: the kernel kills it at the end of the starting thread."""
    argv = build(Machine(memory=32, extra=tuple(rom(tmp_path, IDLE))), can)
    with supervisor("quiet", argv) as process:
        pid = int(line_from(process))
        assert pid in main_threads_children(process.pid)
        with watched(pid) as qemu:
            if state == "stopped":
                os.kill(pid, signal.SIGSTOP)
            process.send_signal(number)
            assert ends_within(qemu, PROMISED)


def read_line(terminal: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([terminal], [], [], TIMEOUT)[0], f"nothing came after {line!r}"
        line += os.read(terminal, 1)
    return line.decode().strip()


def test_ctrl_c_spares_qemu_and_the_terminal_is_restored(can: Capabilities, tmp_path: Path) -> None:
    argv = build(Machine(memory=32, serial=SerialTerminal(), extra=tuple(rom(tmp_path, IDLE))), can)
    outer, inner = pty.openpty()
    try:
        before = termios.tcgetattr(inner)
        with supervisor("terminal", argv, inner) as process:
            pid = int(read_line(outer))
            assert not termios.tcgetattr(inner)[3] & termios.ECHO, "QEMU has not changed the terminal"
            assert os.get_blocking(inner), "QEMU made our open file non-blocking"
            with watched(pid) as qemu:
                os.write(outer, b"\x03")
                assert read_line(outer) == "interrupted; QEMU is running"
                assert read_line(outer).endswith("ended: crashed")
                assert ends_within(qemu, PROMISED)
            assert process.wait(TIMEOUT) == 0
        assert termios.tcgetattr(inner) == before
    finally:
        os.close(outer)
        os.close(inner)
