"""A real daemon in a separate process, and guests at its sockets."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from tests.forked import Forked, can_fork
from vchannel import NEED_DATA, Command, Connection, GuestCommand, HostCommand, Request, Response, Role

TIMEOUT: Final = 20.0
"""Seconds after which a test gives up waiting. A test that passes never waits that long."""

VHOSTCOMM: Final = [sys.executable, "-m", "vhostcomm"]

ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("VHOSTCOMM_")}


def run_vhostcomm(
    *words: str | Path,
    env: dict[str, str] = ENVIRONMENT,
    cwd: Path | None = None,
    timeout: float = TIMEOUT,
    program: str = "vhostcomm",
) -> subprocess.CompletedProcess[str]:
    """Run a verb or another program to its end, in a forked process if possible."""
    command = [*(VHOSTCOMM if program == "vhostcomm" else [program]), *map(str, words)]
    if not can_fork(env):
        return subprocess.run(command, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False)
    process = Forked(
        [*map(str, words)], program=program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd
    )
    assert process.stdout
    assert process.stderr
    with TextIOWrapper(process.stdout) as out, TextIOWrapper(process.stderr) as err, ThreadPoolExecutor(2) as pool:
        printed = pool.submit(out.read), pool.submit(err.read)
        try:
            status = process.wait(timeout)
        finally:
            end(process)
        return subprocess.CompletedProcess(command, status, *(each.result() for each in printed))


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and their descendants."""
    found = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            for child in map(int, each.read_text().split()):
                found += [child, *descendants(child)]
    return found


def main_threads_children(pid: int) -> list[int]:
    """Return the children that a process's main thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(process: subprocess.Popen[Any] | Forked) -> None:
    """Kill a program and its descendants, unless it has ended."""
    if process.poll() is None:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(TIMEOUT)


@contextmanager
def started(
    command: Sequence[Any], *, env: dict[str, str] = ENVIRONMENT, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a program during the context. Leaving the context kills it, so a failed test does not wait for it."""
    with subprocess.Popen(command, env=env, **options) as process:
        try:
            yield process
        finally:
            end(process)


def line_from(process: subprocess.Popen[bytes]) -> str:
    """Return the next line of a program's output. The program was started with `bufsize=0`."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
    assert ready, f"{process.args!r} wrote no line within {TIMEOUT} s"
    return process.stdout.readline().decode().rstrip("\n")


class LogReader:
    """Reads the JSON log of a process, in a thread, and waits for its lines."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | Forked
        self.log: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.other: list[str] = []
        """Lines that are not JSON."""
        self.timeout = TIMEOUT
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()

    def follow(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stream:
            text = line.decode()
            self.raw.append(text)
            try:
                self._lines.put(json.loads(text))
            except ValueError:
                self.other.append(text)

    def event(self, what: str, **facts: object) -> dict[str, Any]:
        """Wait for the first log line with that event and those fields that no earlier call has returned."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                if self.process.poll() is not None and not self._reader.is_alive() and self._lines.empty():
                    raise AssertionError(f"it ended with {self.process.returncode}: {self.errors()}") from None
                assert time.monotonic() < end, f"no {what!r} in {self.log[-20:]}"
                continue
            self.log.append(line)
            if line["event"] == what and all(line.get(name) == fact for name, fact in facts.items()):
                return line

    def errors(self) -> str:
        return "".join(self.other)

    def finish(self) -> None:
        """Read the rest of the log after the process's end."""
        self._reader.join(TIMEOUT)
        # Closing a stream that another thread reads would wait for that thread, and no signal ends the wait.
        assert not self._reader.is_alive(), f"{self.command} ended, but a program that it started keeps its output open"
        self._stream.close()
        while not self._lines.empty():
            self.log.append(self._lines.get())


class Serving(LogReader):
    """A running `vhostcomm serve` and its log. Leaving the context stops it and checks its exit status.

    It is forked if that makes no difference. With `fresh`, it is a new Python that has imported nothing before.
    """

    def __init__(
        self, *words: str | Path, shell: str = "", expect_exit: int | None = 0, fresh: bool = False, **options: Any
    ) -> None:
        command = [*VHOSTCOMM, "serve", "--log-format", "json", *map(str, words)]
        if shell:  # for example "ulimit -n 64"
            command = ["bash", "-c", f'{shell}; exec "$@"', "bash", *command]
        super().__init__(command)
        self._options: dict[str, Any] = {"env": ENVIRONMENT} | options
        self._expect_exit = expect_exit
        self._fresh = fresh
        self._errors = ""

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile()
        self.process = self._start()
        assert self.process.stdout
        self.follow(self.process.stdout)
        try:
            self.event("serving")
        except BaseException:
            end(self.process)
            self.finish()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if kind is None and self._expect_exit is not None:
            assert code == self._expect_exit, (code, self.errors())
            assert not [line for line in self.log if "internal error" in line["event"]], self.log

    def _start(self) -> subprocess.Popen[bytes] | Forked:
        ours, words = self.command[: len(VHOSTCOMM)] == VHOSTCOMM, self.command[len(VHOSTCOMM) :]
        if ours and not self._fresh and self._options.keys() <= {"env", "cwd"} and can_fork(self._options["env"]):
            return Forked(words, stdout=subprocess.PIPE, stderr=self._file, **self._options)
        return subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self._file, **self._options)

    def errors(self) -> str:
        """Return its standard error."""
        if not self._file.closed:
            self._errors = os.pread(self._file.fileno(), 1 << 20, 0).decode()
        return self._errors

    def finish(self) -> None:
        self.errors()
        self._file.close()
        super().finish()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon and read the rest of the log into `log`; return the exit status."""
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            code = self.process.wait(self.timeout)
        finally:
            end(self.process)
            self.finish()
        return code


class FakeGuest:
    """A guest at a socket, with blocking calls."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self.connection = Connection(Role.GUEST)

    def ask(self, command: Command, **options: Any) -> bytes:
        """Ask the host a question; return the answer's data."""
        return self.answer(self.send(command, **options))

    def send(self, command: Command, data: bytes = b"", **options: Any) -> Request:
        request = Request.of(command, data, **options)
        self.sock.sendall(self.connection.send(request))
        return request

    def answer(self, request: Request) -> bytes:
        while True:
            while (event := self.connection.next_event()) is not NEED_DATA:
                if isinstance(event, Response) and event.request is request:
                    return event.data
            data = self.sock.recv(65536)
            assert data, "the daemon closed the connection"
            self.connection.receive_data(data)

    def next_request(self) -> Request:
        """Return the host's next request."""
        while True:
            while (event := self.connection.next_event()) is not NEED_DATA:
                if isinstance(event, Request):
                    return event
            data = self.sock.recv(65536)
            assert data, "the daemon closed the connection"
            self.connection.receive_data(data)

    def until_asked(self, command: Command) -> None:
        """Wait for a request with that command. Answer an earlier probe, which a daemon sends if a busy machine delays the guest."""
        while (request := self.next_request()).command is GuestCommand.GET_INFORMATION:
            self.sock.sendall(self.connection.send(request.reply(b"")))
        assert request.command == command

    def serial(self) -> str:
        return self.ask(HostCommand.GUEST_SERIAL).rstrip(b"\0").decode()

    def unread(self) -> int:
        """Return the number of bytes that the daemon has not read yet."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def waiting(self) -> int:
        """Return the number of bytes that the daemon has sent and this guest has not read."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.FIONREAD, bytes(4)), sys.byteorder)

    def at_end(self) -> bool:
        """Wait until the daemon closes the connection; return False if it sends something instead."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def fake_guest(where: Path | tuple[str, int]) -> Iterator[FakeGuest]:
    """Connect a guest to a daemon's socket."""
    family = socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect(str(where) if isinstance(where, Path) else where)
        yield FakeGuest(sock)


@contextmanager
def held_port(address: str = "127.0.0.1") -> Iterator[int]:
    """A free TCP port that no connection and no other test can get during the context.

    The port is bound without listening, so programs that set SO_REUSEADDR can listen there, as daemons and QEMU do.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, 0))
        yield holder.getsockname()[1]


def is_listening(path: Path) -> bool:
    """Return whether a program listens at a unix socket. The socket's file appears slightly earlier."""
    sockets = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(fields[3] == "00010000" and fields[7:] == [str(path)] for fields in sockets)


def until(condition: Any, what: str = "it", timeout: float = TIMEOUT) -> None:
    """Wait for a change in another process or in a file, for which there is no event."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)
