"""Processes of `vhostcomm`, `vdsm_run` and `qemu-host`, forked from one that has started Python and imported everything.

Each is a real process with its own streams, folder, environment, signals and exit status. Only the forking process is
shared. Tests of the start, of inherited descriptors or of a wrapper around the program start Python, see `can_fork`. Tests
of finalizers also do, because a forked process ends after the functions of atexit.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pkgutil
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NoReturn

CLOSED: Final = -9
"""A value for `stdout`: standard output is closed from the start."""

_STATUS: Final = struct.Struct("i")
_STUB: Final = Path(__file__).with_name("forking.py")
_PROGRAMS: Final = {
    "vhostcomm": ("vhostcomm.cli", "main"),
    "vdsm_run": ("vhostcomm.cli", "vdsm_run"),
    "vdsm_run.py": ("vhostcomm.cli", "vdsm_run"),
    "qemu-host": ("vhostcomm.cli.qemu_host", "main"),
}
"""The main function of each program, by the name of its file."""

_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_")
"""Prefixes of environment variables that Python and libc read only at the start."""


def _at_start(env: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return the variables of an environment that only affect the start."""
    return frozenset((name, value) for name, value in env.items() if name.startswith(_AT_START))


def can_fork(env: Mapping[str, str]) -> bool:
    """Return whether a process with that environment may be forked: no variable affects only the start."""
    return _at_start(env) == _at_start(os.environ)


def forking(program: Path, env: Mapping[str, str]) -> Path:
    """Return a script for a shell's PATH that runs `program` forked. It starts `serve` and `run`, because shells signal them.

    Args:
        program: vhostcomm or vdsm_run, as installed.
        env: the variables of the shell's environment that `_AT_START` names.
    """
    made = _forker(_at_start(env)).folder / program.name
    if not made.exists():
        words = [sys.executable, "-IS", _STUB, made.with_name("asked"), program]
        made.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        made.chmod(0o755)
    return made


class Forked:
    """A program in a forked process. Its attributes and methods are those of `subprocess.Popen`.

    Args:
        words: the arguments.
        program: the program's file, or a link to it: vhostcomm, vdsm_run.py or qemu-host.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        env: Mapping[str, str],
        cwd: Path | None = None,
        program: str = "vhostcomm",
    ) -> None:
        self.args = [program, *words]
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._status, status = socket.socketpair()
        self.stdout, out = _piped(stdout)
        self.stderr, err = _piped(stderr)
        job = os.memfd_create("job")
        closed = [1] if out == CLOSED else []
        out = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if closed else out
        closing = "1" if closed else ""
        called = [str(cwd or Path.cwd()), closing, str(len(self.args)), *self.args, *map("=".join, env.items())]
        os.write(job, b"\0".join(map(os.fsencode, called)))
        try:
            socket.send_fds(_forker(_at_start(os.environ)).connection, [b"job"], [status.fileno(), job, 0, out, err])
        finally:
            os.close(job)
            status.close()
            for given, fd in (self.stdout or closed, out), (self.stderr, err):
                if given:
                    os.close(fd)
        (self.pid,) = _STATUS.unpack(self._status.recv(_STATUS.size))

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                with suppress(BlockingIOError):
                    (self.returncode,) = _STATUS.unpack(self._status.recv(_STATUS.size, socket.MSG_DONTWAIT))
                    self._status.close()  # the process id can be reused only from here on
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            ready, _, _ = select.select([self._status], [], [], timeout)
            if not ready:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _piped(stream: int | IO[bytes]) -> tuple[IO[bytes] | None, int]:
    """Return the reading end of a pipe, if a pipe is wanted, and the descriptor to which the process writes."""
    if stream != subprocess.PIPE:
        return None, stream if isinstance(stream, int) else stream.fileno()
    ours, its = os.pipe()
    return os.fdopen(ours, "rb"), its


class _Forker:
    """A forking process, a connection to it, and a folder with a socket for programs that a shell calls.

    The process ends with the connection.
    """

    def __init__(self, at_start: Mapping[str, str]) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(_AT_START)}
        self._folder = tempfile.TemporaryDirectory(prefix="forker-")
        self.folder = Path(self._folder.name)
        self.connection, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(self.folder / "asked"))
            listening.listen()
            fds = its.fileno(), listening.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, *map(str, fds)], env=env | dict(at_start),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=fds,
            )  # fmt: skip

    def end(self) -> None:
        self.connection.close()
        self._process.wait()
        self._folder.cleanup()


_forkers: Final[dict[frozenset[tuple[str, str]], _Forker]] = {}


def _forker(at_start: frozenset[tuple[str, str]]) -> _Forker:
    if at_start not in _forkers:
        _forkers[at_start] = _Forker(dict(at_start))
    return _forkers[at_start]


def end_forker() -> None:
    """End the forking processes. Their forked processes continue."""
    while _forkers:
        _forkers.popitem()[1].end()


def _import_all() -> None:
    """Import the modules of all verbs, and evaluate annotations."""
    import vhostcomm

    for each in pkgutil.walk_packages(vhostcomm.__path__, "vhostcomm."):
        if not each.name.endswith(("__main__", "die_with_parent")):
            importlib.import_module(each.name)
    for name in "rich.console", "rich.table", "rich.text":
        importlib.import_module(name)
    from vhostcomm.cli.app import app

    app.parse_args(["serve", "--sock", "/nas"], exit_on_error=False, print_error=False)  # the first one takes longer


def _fork_until_asked_no_more(asked: socket.socket, listening: socket.socket) -> list[int]:
    """Fork at each message, and report exit statuses. Returns only in a child, with the message's descriptors."""
    running: dict[int, tuple[int, socket.socket]] = {}
    """Children by the awaited descriptor: that of a running process, or the connection of one that has ended."""
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    poll.register(listening, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in {asked.fileno(), listening.fileno()}:
                if ready == asked.fileno():
                    message, fds, _, _ = socket.recv_fds(asked, 8, 5)
                    if not message:
                        os._exit(0)
                else:
                    with listening.accept()[0] as connection:
                        message, fds, _, _ = socket.recv_fds(connection, 8, 5)
                    if not message:  # the client was killed before it had sent its request
                        continue
                pid = os.fork()
                if pid == 0:
                    return fds
                for fd in fds[1:]:
                    os.close(fd)
                status = socket.socket(fileno=fds[0])
                status.send(_STATUS.pack(pid))
                running[process := os.pidfd_open(pid)] = pid, status
                poll.register(process, select.POLLIN)
                continue
            pid, status = running.pop(ready)
            poll.unregister(ready)
            if ready != status.fileno():  # it has ended; it stays a zombie until its status is read, like any child
                os.close(ready)
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                assert ended
                killed = ended.si_code != os.CLD_EXITED
                with suppress(BrokenPipeError):
                    status.send(_STATUS.pack(-ended.si_status if killed else ended.si_status))
                running[status.fileno()] = pid, status
                poll.register(status, select.POLLIN)
            else:
                status.close()
                os.waitpid(pid, 0)


def _become(fds: list[int]) -> None:
    """Give this process the state of one that was just started for the job."""
    with os.fdopen(fds[1], "rb") as file:
        file.seek(0)
        cwd, closing, count, *words = map(os.fsdecode, file.read().split(b"\0"))
    for fd, given in enumerate(fds[2:]):
        os.dup2(given, fd, inheritable=True)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = open(  # noqa: SIM115
            fd, "w" if fd else "r", 1 if fd == 2 else -1, encoding=old.encoding, errors=old.errors, closefd=False
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    if closing:
        os.close(1)
        sys.stdout = sys.__stdout__ = None  # type: ignore[misc]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update((name, value) for name, _, value in (each.partition("=") for each in words[int(count) :]))
    time.tzset()
    sys.argv = words[: int(count)]


def _end_as(program: Callable[[], NoReturn]) -> NoReturn:
    """Run a program and end with its exit status, without Python's finalizers, which would copy the memory shared by the fork.

    The other steps are those of Python's end. If the program or a step fails, Python ends as usual.
    """
    try:
        program()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are not daemons
        atexit._run_exitfuncs()
        try:
            for stream in sys.stdout, sys.stderr:
                if stream is not None:
                    stream.flush()
        except Exception:  # noqa: BLE001
            raise ended from None
        os._exit(ended.code)


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    _become(_fork_until_asked_no_more(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:])))
    module, function = _PROGRAMS[Path(sys.argv[0]).resolve().name]
    if sys.argv[0] == "vhostcomm":
        from vhostcomm import cli

        sys.argv[0] = str(Path(cli.__file__).parents[1] / "__main__.py")
    _end_as(getattr(importlib.import_module(module), function))
