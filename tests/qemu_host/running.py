"""A real `qemu-host` in a process of its own, its two sockets, and guests that answer."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import httpx

from tests.forked import Forked, can_fork
from tests.serving import ENVIRONMENT, TIMEOUT, FakeGuest, end, fake_guest, until
from vchannel import NEED_DATA, HostCommand, Request

QEMU_HOST: Final = Path(sys.executable).with_name("qemu-host")

Answerer = Callable[[Request], bytes | None]


class QemuHost:
    """`qemu-host` on two unix sockets in a folder. Leaving the context stops it and checks that it ends well.

    Args:
        folder: for its sockets and its output.
        words: more flags.
        program: the program to run; a link gives it another folder.
        shell: a command before it, such as "ulimit -n 64".
        stdout: where its trace goes; a file by default.
    """

    def __init__(
        self, folder: Path, *words: str, program: Path = QEMU_HOST, shell: str = "", stdout: Any = None
    ) -> None:
        self.sock, self.api = folder / "guest.sock", folder / "api.sock"
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._stdout = stdout
        self.command = [str(program), f"-addr=unix:{self.sock}", "-api", str(self.api), *words]
        self._shell = shell
        if shell:
            self.command = ["bash", "-c", f'{shell}; exec "$@"', "bash", *self.command]

    def __enter__(self) -> Self:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = self._start(self._stdout or out, err)
        try:  # the API's socket is made last
            until(lambda: listens(self.api) or self.process.poll() is not None, "its sockets")
            assert self.process.poll() is None, self.errors
        except BaseException:
            end(self.process)
            raise
        return self

    def _start(self, out: Any, err: IO[bytes]) -> subprocess.Popen[bytes] | Forked:
        program, *words = self.command
        if self._shell or not can_fork(ENVIRONMENT) or Path(program).resolve() != QEMU_HOST.resolve():
            return subprocess.Popen(self.command, stdout=out, stderr=err, env=ENVIRONMENT)
        return Forked(words, program=program, stdout=out, stderr=err, env=ENVIRONMENT)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, self.errors
            assert "internal error" not in self.errors
            assert "Traceback" not in self.errors
            assert not self.sock.exists()
            assert not self.api.exists()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(TIMEOUT)
        finally:
            end(self.process)

    @property
    def trace(self) -> list[str]:
        """The lines on its standard output."""
        return self._out.read_text().split("\n")[:-1]

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """A request's status and body."""
        return request(self.api, path, method)


def listens(where: Path | int) -> bool:
    """Whether a process listens at a path, or at a port of this machine."""
    with socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET) as trial:
        trial.setblocking(isinstance(where, int))
        return trial.connect_ex(str(where) if isinstance(where, Path) else ("127.0.0.1", where)) == 0


def request(where: Path, path: str, method: str = "GET") -> tuple[int, str]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(where)), timeout=100) as client:
        got = client.request(method, f"http://localhost{path}")
    assert got.headers["content-type"] == "application/json"
    return got.status_code, got.text


def ok(data: str) -> tuple[int, str]:
    return 200, f'{{"status": "success", "data": {data}, "message": null}}'


def error(message: str) -> tuple[int, str]:
    return 500, f'{{"status": "error", "message": "{message}", "data": null}}'


@contextmanager
def answering(where: Path | tuple[str, int], answer: Answerer) -> Iterator[FakeGuest]:
    """A guest that is up and answers in a thread; None is no answer."""
    with fake_guest(where) as guest:
        guest.serial()
        guest.sock.settimeout(None)  # the thread ends with the connection
        thread = threading.Thread(target=_answer, args=(guest, answer))
        thread.start()
        try:
            yield guest
        finally:
            guest.sock.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "the guest's thread still answers"


def _answer(guest: FakeGuest, answer: Answerer) -> None:
    with suppress(OSError):  # the connection can end while an answer is written too
        while True:
            while (event := guest.connection.next_event()) is not NEED_DATA:
                if isinstance(event, Request) and (data := answer(event)) is not None and event.needs_response:
                    guest.sock.sendall(guest.connection.send(event.reply(data)))
            if not (data := guest.sock.recv(65536)):
                return
            guest.connection.receive_data(data)


@contextmanager
def asking(where: Path, path: str) -> Iterator[list[tuple[int, str]]]:
    """A request in a thread; its answer is in the list after the context."""
    found: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: found.append(request(where, path)))
    thread.start()
    yield found
    thread.join(TIMEOUT)
    assert found


SERIAL: Final = HostCommand.GUEST_SERIAL
ZERO: Final = "0" * 13
