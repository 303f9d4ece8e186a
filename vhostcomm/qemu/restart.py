"""Decide whether and when to start QEMU again after it ended."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from attrs import frozen

from vhostcomm.qemu.ending import Ending, EndKind

BUDGET: Final = 5
"""Maximum restarts within the window; then QEMU stays down."""

WINDOW: Final = 600.0
"""Seconds. Older restarts count neither for the budget nor for the delay."""

FIRST_DELAY: Final = 1.0
"""Seconds before the first restart; doubled for each further one within the window."""


class RestartWhen(Enum):
    """After which endings to restart. Never after the guest's own shutdown or a requested stop."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


_ON_FAILURE: Final = frozenset({EndKind.CRASHED, EndKind.PANICKED})

_NEVER: Final = frozenset(
    {EndKind.POWERED_OFF, EndKind.STOPPED, EndKind.STOPPED_PAUSED, EndKind.MIGRATED, EndKind.KILLED}
)


@frozen
class Restart:
    """Restart after `delay` seconds; `number` counts the restarts within the window."""

    delay: float
    number: int


@frozen
class StayDown:
    """Do not restart; `why` is the reason."""

    why: str


class Restarts:
    """Decides after each ending, and remembers its restarts."""

    def __init__(self, when: RestartWhen) -> None:
        self._when = when
        self._times: deque[float] = deque()

    def after(self, ending: Ending, now: float) -> Restart | StayDown:
        """Decide after an ending at `now` seconds of any steady clock."""
        if ending.kind in _NEVER:
            return StayDown("it was meant to end")
        if self._when is RestartWhen.NO:
            return StayDown("restarting is off")
        if self._when is RestartWhen.ON_FAILURE and ending.kind not in _ON_FAILURE:
            return StayDown(f"{ending.kind.value} is not a failure that a restart could fix")
        while self._times and now - self._times[0] >= WINDOW:
            self._times.popleft()
        made = len(self._times)
        if made >= BUDGET:
            return StayDown(f"{made} restarts within {WINDOW:g} s is the limit")
        self._times.append(now)
        return Restart(FIRST_DELAY * 2**made, made + 1)
