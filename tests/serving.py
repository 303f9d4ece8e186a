"""A real daemon in a process of its own, and guests at its sockets."""

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

PATIENCE: Final = 20.0
"""Seconds after which a test gives up waiting; never waited for when all is well."""

VHOSTCOMM: Final = [sys.executable, "-m", "vhostcomm"]

ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("VHOSTCOMM_")}


def run_vhostcomm(
    *words: str | Path,
    env: dict[str, str] = ENVIRONMENT,
    cwd: Path | None = None,
    patience: float = PATIENCE,
    program: str = "vhostcomm",
) -> subprocess.CompletedProcess[str]:
    """A verb, or another program, run to its end, in a forked process where it may be one."""
    command = [*(VHOSTCOMM if program == "vhostcomm" else [program]), *map(str, words)]
    if not can_fork(env):
        return subprocess.run(command, env=env, cwd=cwd, timeout=patience, capture_output=True, text=True, check=False)
    process = Forked(
        [*map(str, words)], program=program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd
    )
    assert process.stdout
    assert process.stderr
    with TextIOWrapper(process.stdout) as out, TextIOWrapper(process.stderr) as err, ThreadPoolExecutor(2) as pool:
        printed = pool.submit(out.read), pool.submit(err.read)
        try:
            status = process.wait(patience)
        finally:
            end(process)
        return subprocess.CompletedProcess(command, status, *(each.result() for each in printed))


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            for child in map(int, each.read_text().split()):
                found += [child, *descendants(child)]
    return found


def main_threads_children(pid: int) -> list[int]:
    """The children that a process's main thread has started, not another thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def end(process: subprocess.Popen[Any] | Forked) -> None:
    """Kill a program and its descendants, unless it has ended."""
    if process.poll() is None:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)


@contextmanager
def started(
    command: Sequence[Any], *, env: dict[str, str] = ENVIRONMENT, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a program beside the test. Leaving the context kills it if it runs: a failed test does not wait for it."""
    with subprocess.Popen(command, env=env, **options) as process:
        try:
            yield process
        finally:
            end(process)


def line_from(process: subprocess.Popen[bytes]) -> str:
    """The next line of a program's output, which was started with `bufsize=0`."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, f"{process.args!r} wrote no line within {PATIENCE} s"
    return process.stdout.readline().decode().rstrip("\n")


class LogReader:
    """Reads the JSON log of a process, in a thread, and waits for its lines."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | Forked
        self.log: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.other: list[str] = []
        """Lines that are no JSON."""
        self.patience = PATIENCE
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
        """The first line of the log, not asked for before, that says so."""
        end = time.monotonic() + self.patience
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
        """After the process's end: what is left of the log."""
        self._reader.join(PATIENCE)
        # To close what another thread reads waits for that thread, and no signal ends that.
        assert not self._reader.is_alive(), f"{self.command} ended; something that it started has its output open"
        self._stream.close()
        while not self._lines.empty():
            self.log.append(self._lines.get())


class Serving(LogReader):
    """`vhostcomm serve` with its log at hand. Leaving the context stops it and checks that it ends well.

    It is forked where that makes no difference, unless it is to be `fresh`: then it has imported nothing before.
    """

    def __init__(
        self, *words: str | Path, shell: str = "", expect_exit: int | None = 0, fresh: bool = False, **options: Any
    ) -> None:
        command = [*VHOSTCOMM, "serve", "--log-format", "json", *map(str, words)]
        if shell:  # such as "ulimit -n 64"
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
        """What it wrote to standard error."""
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
        """End it; returns its exit status. What is left of the log is in `log`."""
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            code = self.process.wait(self.patience)
        finally:
            end(self.process)
            self.finish()
        return code


class FakeGuest:
    """The guest's end of a socket, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.connection = Connection(Role.GUEST)

    def ask(self, command: Command, **options: Any) -> bytes:
        """A question's answer."""
        return self.answer(self.tell(command, **options))

    def tell(self, command: Command, data: bytes = b"", **options: Any) -> Request:
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
        """What it is asked next."""
        while True:
            while (event := self.connection.next_event()) is not NEED_DATA:
                if isinstance(event, Request):
                    return event
            data = self.sock.recv(65536)
            assert data, "the daemon closed the connection"
            self.connection.receive_data(data)

    def until_asked(self, command: Command) -> None:
        """Wait until it is asked that; a probe, which comes first on a machine so busy that it was long silent, is answered."""
        while (request := self.next_request()).command is GuestCommand.GET_INFORMATION:
            self.sock.sendall(self.connection.send(request.reply(b"")))
        assert request.command == command

    def serial(self) -> str:
        return self.ask(HostCommand.GUEST_SERIAL).rstrip(b"\0").decode()

    def unread(self) -> int:
        """Bytes that the daemon has not read yet."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def waiting(self) -> int:
        """Bytes that the daemon has sent, which are not read here."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.FIONREAD, bytes(4)), sys.byteorder)

    def at_end(self) -> bool:
        """Wait until the daemon closes; False if it sends something instead."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def fake_guest(where: Path | tuple[str, int]) -> Iterator[FakeGuest]:
    """A guest at a daemon's socket."""
    family = socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect(str(where) if isinstance(where, Path) else where)
        yield FakeGuest(sock)


@contextmanager
def held_port(address: str = "127.0.0.1") -> Iterator[int]:
    """A free TCP port, which no connection and no other test is given meanwhile.

    It is bound without listening, so that a program can listen there if it sets SO_REUSEADDR, as daemons and QEMU do.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, 0))
        yield holder.getsockname()[1]


def is_listening(path: Path) -> bool:
    """Whether a program listens at a unix socket. Its file is there a moment before that."""
    sockets = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(fields[3] == "00010000" and fields[7:] == [str(path)] for fields in sockets)


def until(condition: Any, what: str = "it", patience: float = PATIENCE) -> None:
    """Wait for something that no event tells of, in a process or file that isn't ours."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)
