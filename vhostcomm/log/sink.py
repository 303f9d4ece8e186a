"""Writing that never waits: a thread of its own, and a queue that loses what it has no room for.

A log or a recording goes to something that may stall (a pipe nobody reads, a slow disk) or fail (a
closed pipe, a full disk). The event loop only ever puts a line into the queue.
"""

from __future__ import annotations

import os
import select
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from sys import getsizeof
from typing import Final, Generic, TypeVar

from vhostcomm.errors import ServeError
from vhostcomm.system_errors import NO_THREAD

QUEUE_BYTES: Final = 2 << 20
"""Bytes waiting for the thread, those being written included: some 7,000 log lines. A stall of seconds loses nothing, and
hundreds of guests whose recordings all stall don't exhaust a machine."""

T = TypeVar("T")


def always(_: OSError) -> bool:
    """Every error is final."""
    return True


class Sink(Generic[T]):
    """Hands items to `write` in a thread, in order, as many at once as have gathered.

    What `write` raises costs its items, and nothing else if it isn't final. Errors other than `OSError` are mistakes of
    a program: the first one is shown on standard error.

    Args:
        write: takes a list of items; may block, and may raise `OSError`. The list is empty where items behind the last
            ones found no room, so that `lost` can be told.
        name: the thread's.
        failed: called in the thread, once, with the error that ended the sink.
        final: whether an error ends the sink; by default each does.
        size: bytes that an item takes in memory.

    Raises:
        ServeError: the system refuses the thread.

    `lost` counts the items that found no room, were being written when that failed, or came after the end; `dead` says
    that an error has ended the sink.
    """

    def __init__(
        self,
        write: Callable[[list[T]], None],
        name: str,
        failed: Callable[[OSError], None],
        final: Callable[[OSError], bool] = always,
        size: Callable[[T], int] = getsizeof,
    ) -> None:
        self._write = write
        self._failed = failed
        self._final = final
        self._size = size
        self._items: deque[T] = deque()
        self._bytes = 0  # of those, and of those being written
        # Its lock is held for moments only, never while something is written.
        self._changed = threading.Condition()
        self._writing = False
        self._full = False  # items found no room since the last were taken
        self._closing = False
        self._warned = False
        self.dead = False
        self.lost = 0
        # A daemon thread: one that is stuck in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            raise ServeError(f"{name}: {NO_THREAD}") from None

    def put(self, item: T) -> None:
        """Queue an item; never waits."""
        size = self._size(item)
        with self._changed:
            if self.dead or self._closing:
                self.lost += 1
                return
            if self._bytes + size > QUEUE_BYTES:
                self.lost += 1
                self._full = True
                self._changed.notify_all()
                return
            self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing that was put is still to be written, at most `timeout` seconds; False if something is."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._items or self._full or self._writing), timeout)

    def close(self, timeout: float) -> bool:
        """Write what is queued, at most for `timeout` seconds, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            error = self._try_write(batch)
            with self._changed:
                self._writing = False
                self._bytes -= sum(map(self._size, batch))
                self.lost += len(batch) if error else 0
                if isinstance(error, OSError) and self._final(error):
                    self.dead = True
                    self.lost += len(self._items)
                    self._items.clear()
                    self._full = False
                self._changed.notify_all()
            if self.dead:
                assert isinstance(error, OSError)
                self._failed(error)
                return

    def _take(self) -> list[T] | None:
        """All that has gathered, when something has or was lost; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._full or self._closing)
            if not (self._items or self._full):
                return None
            batch = list(self._items)
            self._items.clear()
            self._full = False
            self._writing = True
            return batch

    def _try_write(self, batch: list[T]) -> Exception | None:
        try:
            self._write(batch)
        except OSError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, what comes after it must still be written
            if not self._warned:
                self._warned = True
                with suppress(OSError):
                    traceback.print_exc()
            return error
        return None


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however often the kernel takes only a part; waits where the descriptor doesn't block."""
    write_away(fd, bytearray(data))


def write_away(fd: int, data: bytearray) -> None:
    """The same; what is written is taken out of `data`, so that after an error the rest is left in it."""
    while data:
        try:
            del data[: os.write(fd, data)]
        except BlockingIOError:  # somebody else made the terminal or pipe non-blocking
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()
