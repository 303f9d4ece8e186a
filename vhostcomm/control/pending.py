"""The requests that wait for their answer, on any of a daemon's HTTP servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class PendingAnswers:
    """Counts requests that wait for their answer, without streams, so that a stopping daemon can complete them."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = trio.Event()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request as pending inside the block."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def completed(self) -> None:
        """Wait until none is pending."""
        while self._count:
            self._idle = trio.Event()
            await self._idle.wait()
