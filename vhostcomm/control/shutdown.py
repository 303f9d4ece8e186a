"""Shut down a guest: through the guest itself, or through its launcher, which has stronger means."""

from __future__ import annotations

from typing import Any, Final

import trio

from vchannel import GuestCommand
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest
from vhostcomm.control import serialize
from vhostcomm.control.daemon_api import DaemonApi, LauncherApi
from vhostcomm.control.events import Awaited, awaiting
from vhostcomm.control.problems import Problem
from vhostcomm.guest.events import GuestEvent
from vhostcomm.guest.model import State

GONE_TIMEOUT: Final = 1.0
"""Seconds from the end of a connection until its reason is known."""

ASK_INTERVAL: Final = 1.0
"""Seconds at least from one power-off to the next, to a guest that says again and again that it started."""


async def through_guest(daemon: DaemonApi, guest: Guest, wait: float | None, timeout: float, by: str) -> dict[str, Any]:
    """Make a guest power itself off, as soon as it can be asked.

    Args:
        wait: seconds for QEMU to disconnect; None to wait only for the guest's answer.
        timeout: seconds for the guest to be up, and for its answer.
        by: the client.

    Raises:
        CallError: it can't be asked, or doesn't answer.
        Problem: its QEMU is still connected after the wait.
    """
    began = trio.current_time()
    if wait is None:
        with awaiting(daemon, guest.name, GuestEvent.GONE) as ended:
            answered = await _power_off(daemon, guest, timeout, by, ended)
    else:
        answered = await _power_off_for_good(daemon, guest, began + wait, timeout, by)
    end = guest.last_end if guest.state is State.ABSENT else None
    if end and end.by_us:
        why = f"{guest.name}: {_power_off_sent(answered=answered)}, and {end.why}"
        raise Problem(502, "connection lost", why, "check whether its QEMU still runs")
    return _stopped(guest, began, answered=answered, how=end.why if end else None)


async def _power_off_for_good(daemon: DaemonApi, guest: Guest, until: float, timeout: float, by: str) -> bool:
    """Ask until QEMU has disconnected, also after a restart of the guest. Return whether the last was answered."""
    began, times = trio.current_time(), 0
    while True:
        asked = trio.current_time()
        with awaiting(daemon, guest.name, GuestEvent.GONE, GuestEvent.REBOOTED) as ended:
            left = min(timeout, until - trio.current_time())
            try:
                answered = await _power_off(daemon, guest, left, by, ended)
            except CallError as error:
                if error.outcome is Outcome.TIMED_OUT:
                    answered = False
                elif not times:
                    raise
                else:
                    break
            with trio.move_on_at(until):
                await ended.done.wait()
        if ended.event is not GuestEvent.REBOOTED:
            break
        times += 1
        with trio.move_on_at(until) as over:
            await trio.sleep_until(asked + ASK_INTERVAL)
        if over.cancelled_caught:
            break
    if guest.state is State.ABSENT:
        return answered
    sent = _power_off_sent(answered=answered)
    if times:
        why = f"{guest.name}: {sent}, and it started again" + (f", {times} times" if times > 1 else "")
        raise Problem(502, "rebooted", why, "ask again, with more time; look at its console")
    raise Problem(
        504,
        "still there",
        f"{guest.name}: {sent}, and after {until - began:.3g} s its QEMU is still connected",
        "give it more time, look at its console; QEMU's -no-shutdown keeps it there too",
    )


async def _power_off(daemon: DaemonApi, guest: Guest, timeout: float, by: str, ended: Awaited) -> bool:
    """Ask for the power-off once. Return whether it was answered; a guest that ends or restarts before that has not."""
    answered = False
    try:
        with ended.rebooted:
            await daemon.ask_guest(guest, GuestCommand.POWEROFF, timeout=timeout, by=by)
            answered = True
    except CallError as error:
        if error.outcome is not Outcome.LOST:
            raise
        with trio.move_on_after(GONE_TIMEOUT):
            await ended.done.wait()
    return answered


async def through_launcher(
    launcher: LauncherApi, guest: Guest, wait: float | None, timeout: float, by: str
) -> dict[str, Any]:
    """Make the launcher stop a guest: first by its own power-off, then by stronger means.

    Args:
        guest: the guest, in any state.
        wait: seconds for QEMU to end; None to wait only for the guest's answer.
        timeout: seconds for that answer.
        by: the client.

    Raises:
        Problem: its QEMU still runs after the wait.
    """
    began = trio.current_time()
    launcher.ask_to_stop(by)
    with trio.move_on_after(timeout if wait is None else wait):
        if wait is None:
            await _either(launcher.confirmed, launcher.ended)
        else:
            await launcher.ended.wait()
    answered = launcher.confirmed.is_set()
    if launcher.ended.is_set():
        how, status = launcher.ending
        return _stopped(guest, began, answered=answered, how=how, exit_status=status)
    if wait is not None:
        raise Problem(
            504,
            "still there",
            f"{guest.name}: {_power_off_sent(answered=answered)}, and after {wait:g} s its QEMU still runs; "
            f"it is being stopped, now by {launcher.stage or 'nothing yet'}",
            "keep waiting: the launcher stops it within its --grace",
        )
    return _stopped(guest, began, answered=answered)


def _stopped(
    guest: Guest, began: float, *, answered: bool, how: str | None = None, exit_status: int | None = None
) -> dict[str, Any]:
    return serialize.asked(guest, GuestCommand.POWEROFF) | {
        "answered": answered,
        "gone": how is not None,
        "how": how,
        "exit_status": exit_status,
        "seconds": round(trio.current_time() - began, 3),
    }


def _power_off_sent(*, answered: bool) -> str:
    return "it answered that it powers off" if answered else "it did not answer"


async def _either(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def watch(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(watch, event)
