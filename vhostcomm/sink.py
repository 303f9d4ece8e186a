"""Writing that never waits: a thread of its own, and a queue that loses what it has no room for.

A log or a recording goes to something that may stall (a pipe nobody reads, a slow disk) or fail (a
closed pipe, a full disk). The event loop only ever puts a line into the queue.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

QUEUE_LIMIT: Final = 10_000
"""Items waiting for the thread. Of log lines a few MB; of frames 40 MB, some ten seconds of a busy guest."""

T = TypeVar("T")


class Sink(Generic[T]):
    """Hands items to `write` in a thread, in order, as many at once as have gathered.

    Args:
        write: takes a list of items; may block, and may raise `OSError`, which ends the sink.
        name: the thread's.
        failed: called in the thread, once, with the error that ended it.

    `lost` counts the items that found no room, or came after the end.
    """

    def __init__(self, write: Callable[[list[T]], None], name: str, failed: Callable[[OSError], None]) -> None:
        self._write = write
        self._failed = failed
        self._items: deque[T] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = False
        self.dead = False
        self.lost = 0
        # A daemon thread: one that is stuck in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item; never waits."""
        if self.dead or len(self._items) >= QUEUE_LIMIT:
            self.lost += 1
            return
        self._idle.clear()
        self._items.append(item)
        self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is written, at most `timeout` seconds; False if it isn't."""
        return self._idle.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Write what is queued, at most for `timeout` seconds, and end the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._items:
                batch = []
                while self._items:
                    batch.append(self._items.popleft())
                try:
                    self._write(batch)
                except OSError as error:
                    self.lost += len(batch) + len(self._items)
                    self.dead = True
                    self._items.clear()
                    self._idle.set()
                    self._failed(error)
                    return
            self._idle.set()
            if self._items:  # put() between the loop's last look and set()
                self._idle.clear()
                self._wake.set()
            elif self._closing:
                return


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however often the kernel takes only a part; waits where the descriptor doesn't block."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made the terminal or pipe non-blocking
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()
