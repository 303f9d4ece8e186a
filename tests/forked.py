"""Processes of `vhostcomm`, `vdsm_run` and `qemu-host` that skip the start of Python and the imports: they are forked from one that has done both.

Each is a process of its own, with its own streams, folder, environment, signals and exit status. Only the forking process is
shared. Tests of the start itself, of descriptors it inherits or of a wrapper around it start Python, see `can_fork`.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

CLOSED: Final = -9
"""For `stdout`: it is closed from the start."""

_STATUS: Final = struct.Struct("i")
_PROGRAMS: Final = {
    "vhostcomm": ("vhostcomm.cli", "main"),
    "vdsm_run.py": ("vhostcomm.cli", "vdsm_run"),
    "qemu-host": ("vhostcomm.cli.qemu_host", "main"),
}
"""The function that a program calls, by the name of its file."""

_AT_START: Final = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "GLIBC_")
"""Beginnings of the names of environment variables that Python and libc read once, at the start."""


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a process with that environment may be forked: nothing in it has an effect on the start alone."""
    names = {name for name in {*env, *os.environ} if name.startswith(_AT_START)}
    return all(env.get(name) == os.environ.get(name) for name in names)


class Forked:
    """A program in a forked process. Its attributes and methods are those of `subprocess.Popen`.

    Args:
        words: the arguments.
        program: the file that is called, or a link to it: vhostcomm, vdsm_run.py or qemu-host.
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
        called = {"argv": self.args, "env": dict(env), "cwd": str(cwd or Path.cwd()), "closed": closed}
        os.write(job, json.dumps(called).encode())
        try:
            socket.send_fds(_forker()[1], [b"job"], [status.fileno(), job, 0, out, err])
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
                    self._status.close()  # now its process id is free
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
    """A pipe's end to read from, where one is wanted, and the descriptor to write to."""
    if stream != subprocess.PIPE:
        return None, stream if isinstance(stream, int) else stream.fileno()
    ours, its = os.pipe()
    return os.fdopen(ours, "rb"), its


@functools.cache
def _forker() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process that forks, and a connection to it. It ends with the connection."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        forker = subprocess.Popen(
            [sys.executable, "-P", __file__, str(its.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()],
        )  # fmt: skip
    return forker, ours


def end_forker() -> None:
    """End the process that forks, if there is one. Those that it has forked go on."""
    if _forker.cache_info().currsize:
        forker, connection = _forker()
        connection.close()
        forker.wait()
        _forker.cache_clear()


def _import_all() -> None:
    """Import what any verb imports."""
    import vhostcomm

    for each in pkgutil.walk_packages(vhostcomm.__path__, "vhostcomm."):
        if not each.name.endswith(("__main__", "die_with_parent")):
            importlib.import_module(each.name)
    for name in "rich.console", "rich.table", "rich.text":
        importlib.import_module(name)


def _fork_until_asked_no_more(asked: socket.socket) -> list[int]:
    """Fork at each message, and report exit statuses. Returns in a child, with the descriptors that came with the message."""
    running: dict[int, tuple[int, socket.socket]] = {}
    """By the descriptor that is awaited: of a process that runs, or of the connection of one that has ended."""
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == asked.fileno():
                message, fds, _, _ = socket.recv_fds(asked, 8, 5)
                if not message:
                    os._exit(0)
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
            if ready != status.fileno():  # it has ended; it stays a zombie until its status was read, as others do
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
    """Be as a process is that has just been started to do the job."""
    with os.fdopen(fds[1], "rb") as file:
        file.seek(0)
        job: dict[str, Any] = json.load(file)
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
    for fd in job["closed"]:
        os.close(fd)
        sys.stdout = sys.__stdout__ = None  # type: ignore[misc]
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = job["argv"]


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    _become(_fork_until_asked_no_more(socket.socket(fileno=int(sys.argv[1]))))
    module, function = _PROGRAMS[Path(sys.argv[0]).resolve().name]
    if sys.argv[0] == "vhostcomm":
        from vhostcomm import cli

        sys.argv[0] = str(Path(cli.__file__).parents[1] / "__main__.py")
    getattr(importlib.import_module(module), function)()
