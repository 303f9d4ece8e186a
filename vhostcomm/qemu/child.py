"""A child process that dies with this process; waiting for its end needs no polling."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.resources import files
from typing import Final

import trio

from vhostcomm.errors import QemuError
from vhostcomm.linux.children import DEATH_TIMEOUT, waited_for
from vhostcomm.linux.environment import child_environment
from vhostcomm.linux.system_errors import explain
from vhostcomm.qemu.terminal import lent_terminal
from vhostcomm.text import printable

TAIL_LINES: Final = 20
"""Lines of output to keep: QEMU's own errors have one to three, the trace of a failed assertion some more."""

LINE_LIMIT: Final = 4096
"""Maximum bytes of a line; more bytes without a newline are split."""

LAST_WORDS: Final = 1.0
"""Seconds to wait for the rest of the output: a helper of the program may keep the pipe open."""

_STEP: Final = files(__package__).joinpath("die_with_parent.py").read_text(encoding="utf-8")


class Child:
    """A running program, made by `spawn`."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: int, output: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._pidfd = pidfd
        self._output = output
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.code: int | None = None
        """The exit code, or minus a signal's number; None while the process runs."""
        self._output_ended = trio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of output that were read."""
        return tuple(self._tail)

    async def wait(self) -> int:
        """Wait for the end and return `code`. Only one task at a time may wait."""
        if self.code is None:
            # By descriptor, since the kernel may reuse the pid.
            await trio.lowlevel.wait_readable(self._pidfd)
            self._reap()
        assert self.code is not None
        return self.code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is ignored."""
        if self.code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def read_output(self, report: Callable[[str], None]) -> None:
        """Read the output until it ends. Each line is reported, escaped and without its newline.

        This has to run as long as the process: the process blocks when its pipe is full.
        """
        rest = b""
        async for piece in self._output:
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LINE_LIMIT:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._report_line(line, report)
        if rest:
            self._report_line(rest, report)
        self._output_ended.set()

    async def last_words(self) -> None:
        """Wait until the process has ended and its output was read, for at most `LAST_WORDS` seconds."""
        with trio.move_on_after(LAST_WORDS):
            await self.wait()
            await self._output_ended.wait()

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end, for at most `DEATH_TIMEOUT` seconds, even if cancelled."""
        self.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DEATH_TIMEOUT):
            await self.wait()

    def close(self) -> None:
        self._output.close()
        os.close(self._pidfd)

    def _report_line(self, line: bytes, report: Callable[[str], None]) -> None:
        text = printable(line[:LINE_LIMIT].rstrip(b"\r").decode(errors="backslashreplace"))
        self._tail.append(text)
        report(text)

    def _reap(self) -> None:
        found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert found is not None
        self.code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        self._process.returncode = self.code  # else Popen would later wait for the pid, which may be reused


@asynccontextmanager
async def spawn(argv: Sequence[str], *, pass_fds: Collection[int] = (), terminal: bool = False) -> AsyncIterator[Child]:
    """Start a program. At the end of the block it is killed if it still runs, and reaped.

    The kernel kills it when this process dies, even of SIGKILL. It has its own session, so a Ctrl-C in the terminal
    reaches only this process. It inherits no secrets in its environment. `Child.read_output` reads its standard error,
    and its standard output unless the program has the terminal.

    Args:
        argv: the program and its arguments.
        pass_fds: descriptors that it inherits, under the same numbers.
        terminal: whether it inherits this process's standard input and output. The terminal's settings are restored
            at the end, because a killed program can't do that.

    Raises:
        QemuError: this system has no pidfd (Linux before 5.3, or a container that forbids it).
        RuntimeError: called outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        # The kernel sends the death signal when the *thread* that forked ends. An idle trio worker ends after 10 s.
        raise RuntimeError("spawn() outside the main thread: the child would be killed when this thread ends")
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if inherited, the kernel would discard exit codes
    with ExitStack() as stack:
        stdin, stdout = stack.enter_context(lent_terminal()) if terminal else (None, None)
        child = _start(argv, pass_fds, stdin, stdout)
        stack.enter_context(waited_for(child.pid))
        try:
            yield child
        finally:
            if child.code is None:
                await child.kill()
            child.close()


def _start(argv: Sequence[str], pass_fds: Collection[int], stdin: int | None, stdout: int | None) -> Child:
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise QemuError(f"{argv[0]} can't be started: {explain(error)}") from None
    try:
        process = subprocess.Popen(  # noqa: S603 - the arguments are built, or the user's own
            [sys.executable, "-I", "-S", "-c", _STEP, str(os.getpid()), *argv],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=writing if stdout is None else stdout,
            stderr=writing,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            env=child_environment(),
        )
    except OSError as error:
        os.close(reading)
        raise QemuError(f"{argv[0]} can't be started: {explain(error)}") from None
    finally:
        os.close(writing)
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        process.kill()
        process.wait()
        os.close(reading)
        raise QemuError(f"pidfd_open: {error.strerror}; Linux 5.3 or later is needed, with this call allowed") from None
    return Child(process, pidfd, trio.lowlevel.FdStream(reading))
