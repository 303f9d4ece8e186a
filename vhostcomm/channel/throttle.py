"""How much of the daemon one guest may use: frames a second, and work.

A guest that exceeds either is read more slowly, and never disconnected: see `Session.drain`.
"""

from __future__ import annotations

from time import thread_time
from typing import Final

import trio

from vchannel import FRAME_SIZE

READ: Final = 65536
"""Bytes of one read: as much as QEMU's socket has been seen to hold. Also how much one guest gets done in a turn."""

LANE_READ: Final = 4 * FRAME_SIZE
"""Bytes of one read in the lane: another guest's question waits for no more than these, about 0.1 ms."""

BURST: Final = 2.0
"""Seconds' worth of the frame rate that a guest may use at once."""

CREDIT: Final = 0.02
"""Seconds of processor time that a guest may cause at once: some 500 frames. A boot asks fewer than fifty."""

SHARE: Final = 0.01
"""Seconds of work that a guest earns with each second without anything to read: 100 frames a second and more."""

QUESTIONS: Final = 200
"""Turns of one frame at most that cost a guest no credit, each second. They cap no rate; beyond them, work counts."""

CONNECTION: Final = 0.0004
"""Seconds of work for which a connection counts, from its acceptance to its end: 384 µs were measured on a busy processor.

QEMU connects once a second at most.
"""

REST: Final = 9
"""Seconds that the lane rests for each second of work: all guests in it use a tenth of the daemon at most."""

REST_MAX: Final = 0.1
"""Seconds of a rest at most."""

ALONE: Final = 1.0
"""Seconds without a turn of a guest outside the lane after which the lane doesn't rest."""


class Lane:
    """Where guests that have used their credit of work get their turns: one at a time, first come, first served."""

    __slots__ = ("_before_at", "_free_at", "_last", "_lock", "_other", "_other_at")

    def __init__(self) -> None:
        self._lock = trio.StrictFIFOLock()
        self._last: Throttle | None = None  # who had the last turn in it
        self._free_at = 0.0
        self._other: Throttle | None = None  # who had the last turn outside the lane, and when
        self._other_at = float("-inf")
        self._before_at = float("-inf")  # when the last turn of anybody else was

    def outside(self, throttle: Throttle, now: float) -> None:
        """Take note of a turn outside the lane."""
        if self._other is not throttle:
            self._other, self._before_at = throttle, self._other_at
        self._other_at = now

    def comes(self, throttle: Throttle) -> None:
        """Take note that a guest is to use the lane from now on: its own turns outside don't count for it."""
        if self._other is throttle:
            self._other_at = self._before_at

    def is_free_for(self, throttle: Throttle, now: float) -> bool:
        """Whether a guest may have its turn at once, without `enter`."""
        # It had the last turn, and has waited for something to read since: all others that were ready had a turn meanwhile.
        return self._last is throttle and self._is_rested(now) and not self._lock.locked()

    async def enter(self, throttle: Throttle) -> bool:
        """Wait for a turn; `leave` ends it. Returns whether the lane had to rest before."""
        await self._lock.acquire()
        self._last = throttle
        try:
            if self._is_rested(trio.current_time()):
                return False
            await trio.sleep_until(self._free_at)
        except BaseException:
            self._lock.release()
            raise
        return True

    def leave(self, work: float, now: float) -> None:
        """End a turn that took so many seconds."""
        self._free_at = now + min(REST * work, REST_MAX)
        if self._lock.locked():  # not for a turn without `enter`
            self._lock.release()

    def _is_rested(self, now: float) -> bool:
        return now >= self._free_at or now - self._other_at >= ALONE


class Throttle:
    """What one guest may use, over all its connections.

    Args:
        frame_rate: frames a second.
        lane: of the daemon, for a guest that causes too much work.
    """

    __slots__ = (
        "_began",
        "_budget",
        "_counted",
        "_credit",
        "_in_lane",
        "_lane",
        "_questions",
        "_rate",
        "_worked",
        "braked",
    )

    def __init__(self, frame_rate: int, lane: Lane) -> None:
        self._lane = lane
        self._rate = frame_rate * FRAME_SIZE  # bytes a second
        self._budget = self._rate * BURST
        self._credit = CREDIT
        self._questions = float(QUESTIONS)
        self._counted: float | None = None  # when the budget was counted, in the time of trio
        self._worked = float("inf")  # when the last turn, or a wait that we imposed, ended
        self._began = 0.0
        self._in_lane = False
        self.braked = False
        """Whether its turns are in the lane."""

    def ready(self) -> bool:
        """Take note that there is something to read, until when there was nothing, and begin a turn.

        Returns whether to `enter` the lane before. If not, nothing may await until `turned`.
        """
        now = trio.current_time()
        if (idle := now - self._worked) > 0:
            self._credit = min(CREDIT, self._credit + idle * SHARE)
        if self._counted is not None:
            since = now - self._counted
            self._budget = min(self._rate * BURST, self._budget + since * self._rate)
            self._questions = min(QUESTIONS, self._questions + since * QUESTIONS)
        self._counted = now
        if self.braked and self._credit > CREDIT / 2:
            self.braked = False
        if not self.braked:
            self._lane.outside(self, now)
        elif self._lane.is_free_for(self, now):
            self._in_lane = True
        else:
            return True
        self._began = thread_time()
        return False

    async def enter(self) -> bool:
        """Wait for a turn in the lane; nothing may await from then until `turned`. Returns whether the lane rested for it."""
        rested = await self._lane.enter(self)
        self._in_lane = True
        self._began = thread_time()
        return rested

    def turned(self, work: float | None = None, size: int = READ) -> None:
        """End a turn, in the lane or not.

        Args:
            work: seconds for which it counts; None for what it took.
            size: bytes that it read.
        """
        if work is None:
            work = thread_time() - self._began
        if size <= FRAME_SIZE and self._questions >= 1:
            # By count, not by time: a guest that asks and waits isn't braked by a slow or busy processor.
            self._questions -= 1
        else:
            self._credit = max(-CREDIT, self._credit - work)
        now = self._worked = trio.current_time()
        if self._in_lane:
            self._in_lane = False
            self._lane.leave(work, now)
        elif self._credit < 0 and not self.braked:
            self.braked = True
            self._lane.comes(self)

    def read(self, size: int) -> float:
        """Count bytes against the frame rate. Returns seconds for which to read nothing, 0 within the rate."""
        self._budget -= size
        return -self._budget / self._rate if self._budget < 0 else 0.0

    def waited(self) -> None:
        """Take note that a wait ended which says nothing about the guest: it earns nothing for it."""
        self._worked = trio.current_time()
