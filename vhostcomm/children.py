"""Programs that we start: the end of their descendants, and orphans where we are PID 1."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from vhostcomm.environment import child_environment

DEATH_TIMEOUT: Final = 5.0
"""Seconds for a killed process to go. Longer means that it hangs in the kernel, on storage for instance."""

_ours: Final[set[int]] = set()
"""Children with a waiter of their own, by pid."""

_starting = 0
"""Programs being started, in other threads: children already, and not in `_ours` yet."""


@contextmanager
def waited_for(pid: int) -> Iterator[None]:
    """Inside, `reap_orphans` leaves this child alone."""
    _ours.add(pid)
    try:
        yield
    finally:
        _ours.discard(pid)


@asynccontextmanager
async def program(
    argv: Sequence[str], *, added: Mapping[str, str] | None = None, outlived: bool = False, **options: Any
) -> AsyncIterator[trio.Process]:
    """Start a program in a process group of its own; at the end of the block the whole group is killed.

    A descendant that makes itself a session (`setsid`) leaves the group, and survives. Inside, await the program's end
    with `program_ended`: it does not reap, and until then no other group has this one's number.

    Args:
        argv: the program and its arguments.
        added: to its environment, which has no secret of ours.
        outlived: spare what the program left behind, if it ended by itself.
        options: of `trio.lowlevel.open_process`.

    Raises:
        OSError: the program can't be started.
    """
    global _starting  # noqa: PLW0603 - there is one set of children in a process
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
    """Kill a process group whose leader is a child of ours that was not reaped yet."""
    with suppress(ProcessLookupError, PermissionError):  # it may have become another user
        os.killpg(leader, signal.SIGKILL)


async def program_ended(process: trio.Process) -> None:
    """Wait for a program's end without reaping it."""
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
    """As PID 1, reap every process whose parent has died, until cancelled; otherwise return at once.

    The kernel gives orphans to PID 1. In a container started without an init, that is this process.
    """
    if os.getpid() != 1:
        return
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        _reap()
        async for _ in signals:
            _reap()


def _reap() -> None:
    if _starting:
        return  # done again once it is known which child that is
    for pid in _children():
        if pid not in _ours:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _children() -> Iterator[int]:
    own = str(os.getpid())
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):  # gone meanwhile
            # PID (NAME) STATE PARENT …, and a name may hold spaces and parentheses.
            if each.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                yield int(each.parent.name)
