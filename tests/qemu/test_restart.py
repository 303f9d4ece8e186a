from __future__ import annotations

import pytest

from vhostcomm.qemu.ending import Ending, EndKind
from vhostcomm.qemu.restart import Restart, Restarts, RestartWhen, StayDown

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
        decision = Restarts(when).after(Ending(kind, 0), 0.0)
        assert isinstance(decision, Restart) is restarted, (when, decision)


def test_each_restart_waits_twice_as_long_until_the_budget_is_spent() -> None:
    restarts = Restarts(RestartWhen.ON_FAILURE)
    assert [restarts.after(CRASH, now) for now in (0, 10, 20, 30, 40)] == [
        Restart(1, 1), Restart(2, 2), Restart(4, 3), Restart(8, 4), Restart(16, 5),
    ]  # fmt: skip
    assert restarts.after(CRASH, 50) == StayDown("5 restarts within 600 s is the limit")


def test_old_crashes_no_longer_count() -> None:
    restarts = Restarts(RestartWhen.ALWAYS)
    assert [restarts.after(CRASH, now) for now in (0, 50, 100, 150, 200)][-1] == Restart(16, 5)
    assert isinstance(restarts.after(CRASH, 599.9), StayDown)
    assert restarts.after(CRASH, 600) == Restart(16, 5), "the first crash still counts after a whole window"
    assert restarts.after(CRASH, 5000) == Restart(1, 1)


def test_reason_for_no_restart() -> None:
    never = Restarts(RestartWhen.ALWAYS).after(Ending(EndKind.POWERED_OFF, 0), 0)
    assert never == StayDown("it was meant to end")
    bad = Restarts(RestartWhen.ON_FAILURE).after(Ending(EndKind.FAILED_TO_START, 1), 0)
    assert bad == StayDown("failed-to-start is not a failure that a restart could fix")
