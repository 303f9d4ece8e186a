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


class _Place:
    """The threads of one place."""

    def __init__(self) -> None:
        self.limiter = trio.CapacityLimiter(THREADS)
        self.returned = 0
        """Calls that returned."""


_places: Final[WeakValueDictionary[Hashable, _Place]] = WeakValueDictionary()
"""The places in use."""


def _place_of(place: Hashable) -> _Place:
    if (found := _places.get(place)) is None:
        found = _places[place] = _Place()
    return found


async def in_thread(place: Hashable, call: Callable[..., T], *args: object) -> T:
    """Call in a thread. A cancelled call abandons the thread and its result.

    Args:
        place: what may hang, such as a directory.
        call: the function; its errors are raised.
        args: its arguments.
    """
    found = _place_of(place)

    def run() -> T:
        try:
            return call(*args)
        finally:
            found.returned += 1

    return await trio.to_thread.run_sync(run, limiter=found.limiter, abandon_on_cancel=True)


async def unless_it_hangs(place: Hashable, call: Callable[[], None], patience: float) -> None:
    """Call in a thread, and give up once no call in this place returned for `patience` seconds.

    The call waits for its turn behind thousands of others, and may be made again.
    """
    found = _place_of(place)
    while True:
        before = found.returned
        with trio.move_on_after(patience) as waiting:
            await in_thread(place, call)
        if not waiting.cancelled_caught or found.returned == before:
            return


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
