"""Limit one guest's use of the daemon: frames a second, and work.

A guest that exceeds a limit is read more slowly, and never disconnected: see `Session.drain`.
"""

from __future__ import annotations

from math import inf
from time import thread_time
from typing import Final

import trio
from attrs import define, field

from vchannel import FRAME_SIZE

READ: Final = 65536
"""Bytes of one read: the maximum seen in QEMU's socket. Also the work for one guest in one turn."""

LANE_READ: Final = 4 * FRAME_SIZE
"""Bytes of one read in the lane: another guest's question waits for at most these, about 0.1 ms."""

BURST: Final = 2.0
"""Seconds of the frame rate that a guest may use at once."""

CREDIT: Final = 0.02
"""Seconds of processor time that a guest may use at once: about 500 frames. A boot has fewer than fifty."""

SHARE: Final = 0.01
"""Seconds of work that a guest earns for each second without data to read: 100 frames a second and more."""

QUESTIONS: Final = 200
"""Maximum turns of one frame each second that use no credit. They limit no rate: beyond them, work counts."""

CONNECTION: Final = 0.0004
"""Seconds of work that a connection counts, from its acceptance to its end: 384 µs were measured on a busy processor.

QEMU connects at most once a second.
"""

REST: Final = 9
"""Seconds that the lane rests for each second of work: all guests in it use at most a tenth of the daemon."""

REST_MAX: Final = 0.1
"""Maximum seconds of a rest."""

ALONE: Final = 1.0
"""Seconds without a turn outside the lane after which the lane doesn't rest."""


@define(eq=False)
class Lane:
    """Gives turns to guests that have used their credit of work: one at a time, first come, first served."""

    _lock: trio.StrictFIFOLock = field(factory=trio.StrictFIFOLock, init=False)
    _last: Throttle | None = field(default=None, init=False)  # of the last turn in the lane
    _free_at: float = field(default=0.0, init=False)
    _other: Throttle | None = field(default=None, init=False)  # of the last turn outside the lane, and its time
    _other_at: float = field(default=-inf, init=False)
    _before_at: float = field(default=-inf, init=False)  # time of the last turn outside by another guest than that

    def note_outside(self, throttle: Throttle, now: float) -> None:
        """Note a turn outside the lane."""
        if self._other is not throttle:
            self._other, self._before_at = throttle, self._other_at
        self._other_at = now

    def note_entry(self, throttle: Throttle) -> None:
        """Note that a guest uses the lane from now on: its own turns outside no longer count as others'."""
        if self._other is throttle:
            self._other_at = self._before_at

    def is_free_for(self, throttle: Throttle, now: float) -> bool:
        """Return whether a guest may have its turn at once, without `enter`."""
        # It had the last turn and then waited for data, so all other guests with data had a turn meanwhile.
        return self._last is throttle and self._is_rested(now) and not self._lock.locked()

    async def enter(self, throttle: Throttle) -> bool:
        """Wait for a turn, which `leave` ends. Return whether the lane rested before."""
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
        """End a turn that took `work` seconds."""
        self._free_at = now + min(REST * work, REST_MAX)
        if self._lock.locked():  # False for a turn without `enter`
            self._lock.release()

    def _is_rested(self, now: float) -> bool:
        return now >= self._free_at or now - self._other_at >= ALONE


@define(eq=False)
class Throttle:
    """The limits of one guest, for all its connections: a rate of frames a second, and work."""

    _frame_rate: int
    _lane: Lane
    _rate: int = field(init=False)  # bytes a second
    _budget: float = field(init=False)
    _credit: float = field(default=CREDIT, init=False)
    _questions: float = field(default=QUESTIONS, init=False)
    _counted: float | None = field(default=None, init=False)  # when the budget was last counted, by trio's clock
    _worked: float = field(default=inf, init=False)  # when the last turn, or the last wait that it imposed, ended
    _began: float = field(default=0.0, init=False)
    _in_lane: bool = field(default=False, init=False)
    throttled: bool = field(default=False, init=False)
    """Whether its turns are in the lane."""

    def __attrs_post_init__(self) -> None:
        self._rate = self._frame_rate * FRAME_SIZE
        self._budget = self._rate * BURST

    def ready(self) -> bool:
        """Note that data arrived after a wait, and begin a turn.

        Returns whether to `enter` the lane first. If not, the caller must not await anything until `turned`.
        """
        now = trio.current_time()
        if (idle := now - self._worked) > 0:
            self._credit = min(CREDIT, self._credit + idle * SHARE)
        if self._counted is not None:
            since = now - self._counted
            self._budget = min(self._rate * BURST, self._budget + since * self._rate)
            self._questions = min(QUESTIONS, self._questions + since * QUESTIONS)
        self._counted = now
        if self.throttled and self._credit > CREDIT / 2:
            self.throttled = False
        if not self.throttled:
            self._lane.note_outside(self, now)
        elif self._lane.is_free_for(self, now):
            self._in_lane = True
        else:
            return True
        self._began = thread_time()
        return False

    async def enter(self) -> bool:
        """Wait for a turn in the lane; await nothing else until `turned`. Return whether the lane rested for it."""
        rested = await self._lane.enter(self)
        self._in_lane = True
        self._began = thread_time()
        return rested

    def turned(self, work: float | None = None, size: int = READ) -> None:
        """End a turn, in the lane or not, that read `size` bytes. It counts `work` seconds, or the measured time."""
        if work is None:
            work = thread_time() - self._began
        if size <= FRAME_SIZE and self._questions >= 1:
            # By count, not by time: a slow or busy processor must not throttle a guest that asks and waits.
            self._questions -= 1
        else:
            self._credit = max(-CREDIT, self._credit - work)
        now = self._worked = trio.current_time()
        if self._in_lane:
            self._in_lane = False
            self._lane.leave(work, now)
        elif self._credit < 0 and not self.throttled:
            self.throttled = True
            self._lane.note_entry(self)

    def read(self, size: int) -> float:
        """Count bytes against the frame rate. Return the seconds to pause reading, 0 within the rate."""
        self._budget -= size
        return -self._budget / self._rate if self._budget < 0 else 0.0

    def waited(self) -> None:
        """Note the end of a wait that the guest did not cause, so that it earns nothing for it."""
        self._worked = trio.current_time()
