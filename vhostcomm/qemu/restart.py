"""Decide whether and when to start QEMU again after it ended."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final

from attrs import field, frozen

from vhostcomm.errors import UsageError
from vhostcomm.qemu.ending import Ending, EndKind


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
class RestartPolicy:
    """When to restart.

    Args:
        when: after which endings.
        budget: maximum restarts within the window; then QEMU stays down.
        window: seconds. Older restarts count neither for the budget nor for the delay.
        first_delay: seconds before the first restart; doubled for each further one within the window.
        longest_delay: maximum seconds.
    """

    when: RestartWhen = RestartWhen.NO
    budget: int = field(default=5)
    window: float = 600.0
    first_delay: float = 1.0
    longest_delay: float = 60.0

    @budget.validator
    def _check_budget(self, _: object, value: int) -> None:
        if value < 1:
            raise UsageError(f"a budget of {value} restarts: choose {RestartWhen.NO.value} for none")


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

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._times: deque[float] = deque()

    def after(self, ending: Ending, now: float) -> Restart | StayDown:
        """Decide after an ending at `now` seconds of any steady clock."""
        policy = self._policy
        if ending.kind in _NEVER:
            return StayDown("it was meant to end")
        if policy.when is RestartWhen.NO:
            return StayDown("restarting is off")
        if policy.when is RestartWhen.ON_FAILURE and ending.kind not in _ON_FAILURE:
            return StayDown(f"{ending.kind.value} is not a failure that a restart could fix")
        while self._times and now - self._times[0] >= policy.window:
            self._times.popleft()
        made = len(self._times)
        if made >= policy.budget:
            return StayDown(f"{made} restarts within {policy.window:g} s is the limit")
        self._times.append(now)
        return Restart(min(policy.first_delay * 2**made, policy.longest_delay), made + 1)
