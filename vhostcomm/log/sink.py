"""Write without blocking: a thread with a queue, which drops items when it is full.

The output of a log or a recording may stall (an unread pipe, a slow disk) or fail (a closed pipe, a full disk). The
event loop only puts items into the queue.
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
from vhostcomm.linux.system_errors import NO_THREAD

QUEUE_BYTES: Final = 2 << 20
"""Maximum bytes in the queue and being written: about 7,000 log lines. A stall of seconds loses nothing, and
hundreds of guests with stalled recordings don't exhaust the memory."""

T = TypeVar("T")


class Sink(Generic[T]):
    """Passes items to `write` in a thread, in order, in batches of all that are queued.

    An exception of `write` loses its batch, and ends the sink if it is final. Exceptions other than `OSError` are bugs:
    the first one is printed on standard error.

    Args:
        write: writes a list of items; may block, and may raise `OSError`. The list is empty if items were dropped
            after the last batch, so that `write` can report `lost`.
        name: of the thread.
        failed: called in the thread, once, with the error that ended the sink.
        final: whether an error ends the sink; by default every error does.
        size: memory of an item, in bytes.

    Raises:
        ServeError: the system refuses the thread.

    `lost` counts items that were dropped, failed to be written, or came after the end. `dead` is True once an error has
    ended the sink.
    """

    def __init__(
        self,
        write: Callable[[list[T]], None],
        name: str,
        failed: Callable[[OSError], None],
        final: Callable[[OSError], bool] = lambda _: True,
        size: Callable[[T], int] = getsizeof,
    ) -> None:
        self._write = write
        self._failed = failed
        self._final = final
        self._size = size
        self._items: deque[T] = deque()
        self._bytes = 0  # queued and being written
        # Held only for moments, never during a write.
        self._changed = threading.Condition()
        self._writing = False
        self._full = False  # items were dropped since the last batch
        self._closing = False
        self._warned = False
        self.dead = False
        self.lost = 0
        # A daemon thread, so that a blocked write doesn't keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            raise ServeError(f"{name}: {NO_THREAD}") from None

    def put(self, item: T) -> None:
        """Queue an item, or drop it if the queue is full. Never waits."""
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
        """Wait until all items are written, for at most `timeout` seconds. Return False if some are not."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._items or self._full or self._writing), timeout)

    def close(self, timeout: float) -> bool:
        """Write the queued items and end the thread, within `timeout` seconds. Return whether it has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
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

    def _next_batch(self) -> list[T] | None:
        """Wait for items or dropped ones, and return all that are queued; None at the end."""
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
        except Exception as error:  # noqa: BLE001 - later items must still be written
            if not self._warned:
                self._warned = True
                with suppress(OSError):
                    traceback.print_exc()
            return error
        return None


def write_all(fd: int, data: bytes) -> None:
    """Write all data, in several writes if necessary. Waits even if the descriptor is non-blocking."""
    drain(fd, bytearray(data))


def drain(fd: int, data: bytearray) -> None:
    """Write all data like `write_all`, removing from `data` what is written. After an error, `data` is the rest."""
    while data:
        try:
            del data[: os.write(fd, data)]
        except BlockingIOError:  # another process made the terminal or pipe non-blocking
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()
