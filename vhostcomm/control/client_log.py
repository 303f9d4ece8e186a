"""The log for what anyone who can connect may cause."""

from __future__ import annotations

from typing import Final

import trio

from vhostcomm.log.logs import Log

LOG_INTERVAL: Final = 60.0
"""Seconds between two log messages of one kind that clients cause."""


class ClientLog:
    """A log for messages that any client can cause: the first one at once, further ones once a minute with their count.

    The tasks that wait run in `nursery`.
    """

    def __init__(self, log: Log, nursery: trio.Nursery) -> None:
        self._log = log
        self._nursery = nursery
        self._counts: dict[str, int] = {}
        self._facts: dict[str, dict[str, object]] = {}

    def warning(self, event: str, **facts: object) -> None:
        """Log an event, or count it. A count is logged with the facts of the last event."""
        if event in self._counts:
            self._counts[event] += 1
            self._facts[event] = facts
            return
        self._counts[event] = 0
        self._log.warning(event, times=1, **facts)
        self._nursery.start_soon(self._log_later, event)

    async def _log_later(self, event: str) -> None:
        try:
            counted = True
            while counted:
                await trio.sleep(LOG_INTERVAL)
                counted = self._log_count(event)
        finally:
            self._log_count(event)
            del self._counts[event]

    def _log_count(self, event: str) -> bool:
        times, self._counts[event] = self._counts[event], 0
        if times:
            self._log.warning(event, times=times, **self._facts[event])
        return times > 0
