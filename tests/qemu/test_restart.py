from __future__ import annotations

import pytest

from vhostcomm.errors import UsageError
from vhostcomm.qemu.ending import Ending, EndKind
from vhostcomm.qemu.restart import Restart, RestartPolicy, Restarts, RestartWhen, StayDown

CRASH = Ending(EndKind.CRASHED, -11)


@pytest.mark.parametrize(
    ("kind", "on_failure", "always"),
    [
        (EndKind.POWERED_OFF, False, False),
        (EndKind.STOPPED, False, False),
        (EndKind.KILLED, False, False),
        (EndKind.REBOOTED, False, True),
        (EndKind.QUIT_FROM_OUTSIDE, False, True),
        (EndKind.SIGNALLED, False, True),
        (EndKind.FAILED_TO_START, False, True),
        (EndKind.CRASHED, True, True),
        (EndKind.PANICKED, True, True),
    ],
)
def test_a_guest_is_restarted_after_these_endings(kind: EndKind, on_failure: bool, always: bool) -> None:
    expected = {RestartWhen.NO: False, RestartWhen.ON_FAILURE: on_failure, RestartWhen.ALWAYS: always}
    for when, restarted in expected.items():
        decision = Restarts(RestartPolicy(when)).after(Ending(kind, 0), 0.0)
        assert isinstance(decision, Restart) is restarted, (when, decision)


def test_each_restart_waits_twice_as_long_until_the_budget_is_spent() -> None:
    restarts = Restarts(RestartPolicy(RestartWhen.ON_FAILURE, budget=4, first_delay=2, longest_delay=10))
    assert [restarts.after(CRASH, now) for now in (0, 10, 20, 30)] == [
        Restart(2, 1), Restart(4, 2), Restart(8, 3), Restart(10, 4),
    ]  # fmt: skip
    assert restarts.after(CRASH, 40) == StayDown("4 restarts within 600 s is the limit")


def test_old_crashes_no_longer_count() -> None:
    restarts = Restarts(RestartPolicy(RestartWhen.ALWAYS, budget=2, window=100))
    assert [restarts.after(CRASH, now) for now in (0, 50)] == [Restart(1, 1), Restart(2, 2)]
    assert isinstance(restarts.after(CRASH, 99.9), StayDown)
    assert restarts.after(CRASH, 100) == Restart(2, 2), "the first crash still counts after a whole window"
    assert restarts.after(CRASH, 1000) == Restart(1, 1)


def test_reason_for_no_restart() -> None:
    never = Restarts(RestartPolicy(RestartWhen.ALWAYS)).after(Ending(EndKind.POWERED_OFF, 0), 0)
    assert never == StayDown("it was meant to end")
    bad = Restarts(RestartPolicy(RestartWhen.ON_FAILURE)).after(Ending(EndKind.FAILED_TO_START, 1), 0)
    assert bad == StayDown("failed-to-start is not a failure that a restart could fix")


def test_budget_of_zero_is_rejected() -> None:
    with pytest.raises(UsageError, match="choose no for none"):
        RestartPolicy(RestartWhen.ALWAYS, budget=0)
