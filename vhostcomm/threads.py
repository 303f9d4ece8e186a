"""Make calls that may block, in threads: a path may be on a hanging file system, such as NFS or FUSE."""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio

THREADS: Final = 4
"""Threads of one place. A hanging place occupies no thread of another place."""

T = TypeVar("T")

_limiters: Final[WeakValueDictionary[Hashable, trio.CapacityLimiter]] = WeakValueDictionary()
"""The limiters in use, by place. An abandoned thread still uses its limiter."""


async def in_thread(place: Hashable, call: Callable[..., T], *args: object) -> T:
    """Call in a thread. A cancelled call abandons the thread and its result.

    Args:
        place: what may hang, such as a directory.
        call: the function; its errors are raised.
        args: its arguments.
    """
    if (limiter := _limiters.get(place)) is None:
        limiter = _limiters[place] = trio.CapacityLimiter(THREADS)
    return await trio.to_thread.run_sync(call, *args, limiter=limiter, abandon_on_cancel=True)


async def connect(path: Path) -> socket.socket:
    """Connect to a unix socket, without waiting for its listener. Return it, non-blocking.

    Raises:
        OSError: no process listens there.
    """
    return await in_thread(path.parent, _connect, path)


def _connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made
