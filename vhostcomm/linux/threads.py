"""Keep the event loop free for guests: calls that may block, in threads, and long work in slices.

A path may be on a hanging file system, such as NFS or FUSE.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio
from attrs import define, field, frozen

from vhostcomm.errors import VhostcommError

THREADS: Final = 4
"""Threads of one place. A hanging place occupies no thread of another place."""

SWITCH_INTERVAL: Final = 0.0002
"""Seconds between switches of threads inside `short_turns`; Python's default is 0.005."""

SLICE: Final = 0.0005
"""Seconds of work with many guests before other tasks run: a guest's answer may wait for it. A checkpoint needs a tenth."""

DISCARD_TIMEOUT: Final = 3.0
"""Seconds that a cancelled `made_in_thread` waits for `discard`: longer than a recording takes to close."""

T = TypeVar("T")

_EXPECTED: Final = (OSError, VhostcommError)
"""Errors whose traceback nobody reads."""


class _Place:
    """The threads of one place."""

    def __init__(self) -> None:
        self.limiter = trio.CapacityLimiter(THREADS)
        self.returned = 0.0
        """When the last call returned, by trio's clock."""
        self.queue: list[_Queued] = []
        """Calls that the next thread makes one after the other."""
        self.has_queue_task = False
        self.waiting: dict[float, dict[trio.Event, float]] = {}
        """When calls without a result were queued, the oldest first, by their time limit and the event of their end.

        One task for each limit gives up on them. It must not keep a call, which may be the last to know a guest.
        """


@frozen
class _Raised:
    """An expected error of a call in a thread, as a value, without the thread's part of its traceback.

    An error refers to the frames of its traceback. Those of trio's threads refer to the error too, and so do ours unless
    they forget it. Then only a garbage collection frees what the frames refer to, such as a guest.
    """

    error: Exception


@define(eq=False)
class _Queued:
    """A call in a queue."""

    call: Callable[[], None]
    error: Exception | None = None
    done: trio.Event = field(factory=trio.Event)


_places: Final[WeakValueDictionary[Hashable, _Place]] = WeakValueDictionary()
"""The places in use."""


def _place_of(place: Hashable) -> _Place:
    return _places.setdefault(place, _Place())


class _Turns:
    """How many `short_turns` are entered, and the interval before the first."""

    entered = 0
    before = 0.0


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items one by one, and let other tasks run after each `SLICE` of work with them."""
    until = time.perf_counter() + SLICE
    for item in items:
        if time.perf_counter() >= until:
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + SLICE
        yield item


@contextmanager
def short_turns() -> Iterator[None]:
    """Have threads switch often inside the block, which computes in a thread while guests are served.

    The event loop and the thread take turns; a guest's answer may wait for some of them. For the event loop only.
    """
    if not _Turns.entered:
        _Turns.before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
    _Turns.entered += 1
    try:
        yield
    finally:
        _Turns.entered -= 1
        if not _Turns.entered:
            sys.setswitchinterval(_Turns.before)


async def in_thread(place: Hashable, call: Callable[..., T], *args: object) -> T:
    """Call in a thread and raise its errors. A cancelled call abandons the thread and its result.

    `place` is what may hang, such as a directory.
    """
    found, clock = _place_of(place), trio.lowlevel.current_clock()

    def run() -> T | _Raised:
        try:
            return call(*args)
        except _EXPECTED as error:
            return _Raised(error.with_traceback(None))
        finally:
            found.returned = clock.current_time()

    result = await trio.to_thread.run_sync(run, limiter=found.limiter, abandon_on_cancel=True)
    if not isinstance(result, _Raised):
        return result
    try:
        raise result.error
    finally:
        del result  # see `_Raised`


async def made_in_thread(place: Hashable, make: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Make something in a thread that has to be closed. If the call is cancelled, a thread discards what was made.

    `place` is what may hang, such as a directory.
    """
    made: list[T] = []
    cancelled = False
    changing = threading.Lock()  # either the thread sees that the call is cancelled, or the call what was made

    def run() -> None:
        result = make()
        with changing:
            made.append(result)
            late = cancelled
        if late:
            discard(result)

    try:
        await in_thread(place, run)
    except BaseException:
        with changing:
            cancelled = True
            early = list(made)
        with trio.CancelScope(shield=True):
            for each in early:
                await unless_it_hangs(place, partial(discard, each), DISCARD_TIMEOUT)
        raise
    return made[0]


async def unless_it_hangs(place: Hashable, call: Callable[[], None], timeout: float) -> None:
    """Make a short call in a thread, and give up once no call in this place returned for `timeout` seconds.

    One thread makes all calls that wait, and one task gives up on them, so that thousands of them need few of both.
    """
    found = _place_of(place)
    queued = _Queued(call)
    found.queue.append(queued)
    if not found.has_queue_task:
        found.has_queue_task = True
        trio.lowlevel.spawn_system_task(_empty_queue, place, found)
    if timeout not in found.waiting:
        found.waiting[timeout] = {}
        trio.lowlevel.spawn_system_task(_give_up, found, timeout)
    waiting = found.waiting[timeout]
    waiting[queued.done] = trio.current_time()
    try:
        await queued.done.wait()
    finally:
        waiting.pop(queued.done, None)
    if queued.error:
        try:
            raise queued.error
        finally:
            del queued  # see `_Raised`


async def _give_up(found: _Place, timeout: float) -> None:
    waiting = found.waiting[timeout]
    try:
        while waiting:
            oldest, since = next(iter(waiting.items()))
            due = max(since, found.returned) + timeout
            if due > trio.current_time():
                await trio.sleep_until(due)
            else:
                del waiting[oldest]
                oldest.set()
    finally:
        del found.waiting[timeout]


async def _empty_queue(place: Hashable, found: _Place) -> None:
    try:
        while batch := found.queue:
            found.queue = []
            try:
                await in_thread(place, _make_calls, found, batch, trio.lowlevel.current_clock())
            except RuntimeError as error:  # no thread can be started
                for queued in batch:
                    queued.error = error
            for queued in batch:
                queued.done.set()
    finally:
        found.has_queue_task = False


def _make_calls(found: _Place, batch: list[_Queued], clock: trio.abc.Clock) -> None:
    for queued in batch:
        try:
            queued.call()
        except Exception as error:  # noqa: BLE001 - raised where the call was requested
            queued.error = error.with_traceback(None) if isinstance(error, _EXPECTED) else error
        found.returned = clock.current_time()


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
