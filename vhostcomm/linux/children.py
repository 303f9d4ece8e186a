"""Start programs and end their descendants; reap orphans when running as PID 1."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from vhostcomm.linux.environment import child_environment

DEATH_TIMEOUT: Final = 5.0
"""Seconds for a killed process to end. After that, it hangs in the kernel, for example on storage."""

_ours: Final[set[int]] = set()
"""Children whose end some task awaits, by pid."""

_starting = 0
"""Number of programs being started in other threads: already children, but not yet in `_ours`."""


@contextmanager
def waited_for(pid: int) -> Iterator[None]:
    """Make `reap_orphans` ignore this child inside the block."""
    _ours.add(pid)
    try:
        yield
    finally:
        _ours.discard(pid)


@asynccontextmanager
async def program(
    argv: Sequence[str], *, added: Mapping[str, str] | None = None, outlived: bool = False, **options: Any
) -> AsyncIterator[trio.Process]:
    """Start a program in its own process group, and kill the group at the end of the block.

    A descendant with its own session (`setsid`) leaves the group and survives. Inside the block, await the program's
    end with `program_ended`: it does not reap the program, so the group's number can't be reused before the kill.

    Args:
        added: environment variables in addition to our own, without our secrets.
        outlived: if the program ends by itself, do not kill the processes that it left.
        options: of `trio.lowlevel.open_process`.

    Raises:
        OSError: the program can't be started.
    """
    global _starting  # noqa: PLW0603 - a process has one set of children
    _starting += 1
    try:
        process = await trio.lowlevel.open_process(
            argv, env=child_environment(**(added or {})), start_new_session=True, **options
        )
        _ours.add(process.pid)
    finally:
        _starting -= 1
        if os.getpid() == 1:
            _reap()
    try:
        yield process
    finally:
        if not (outlived and _has_ended(process.pid)):
            kill_group(process.pid)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DEATH_TIMEOUT):
            await process.wait()
        _ours.discard(process.pid)


def kill_group(leader: int) -> None:
    """Kill a process group whose leader is our own child and was not yet reaped."""
    with suppress(ProcessLookupError, PermissionError):  # it may run as another user now
        os.killpg(leader, signal.SIGKILL)


async def program_ended(process: trio.Process) -> None:
    """Wait for a program's end without reaping the program."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # Linux before 5.3, or a container that forbids it
        await process.wait()
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _has_ended(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


async def reap_orphans() -> None:
    """As PID 1, reap every process whose parent has died, until cancelled. Otherwise return at once.

    The kernel makes PID 1 the parent of orphans. In a container without an init, this process is PID 1.
    """
    if os.getpid() != 1:
        return
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        _reap()
        async for _ in signals:
            _reap()


def _reap() -> None:
    if _starting:
        return  # `program` calls this again when it knows the child
    for pid in _children():
        if pid not in _ours:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _children() -> Iterator[int]:
    own = str(os.getpid())
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):  # it ended meanwhile
            # PID (NAME) STATE PARENT …; the name may contain spaces and parentheses.
            if each.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                yield int(each.parent.name)
