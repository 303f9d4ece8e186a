"""Update the knowledge about guests: ask those whose reports are old."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from vhostcomm.channel.guest import Guest
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.guest.model import State

FRESH: Final = 10.0
FRESH_UNKNOWN: Final = 1.0
"""Maximum age of a guest's information in seconds; less if it has no address."""

LIST_TIMEOUT: Final = 0.5
"""Seconds that a list waits for answers: a guest that is up needs a hundredth of that."""


async def freshen(daemon: DaemonApi) -> None:
    """Ask the guests whose information is old. Wait for those that may answer, each for at most its own time."""
    old = [guest for guest in daemon.guests.values() if guest.state is not State.READY or _is_old(guest)]
    await _answers([(guest, daemon.probe(guest.name, 0.0)) for guest in old])


async def look_for(daemon: DaemonApi, guests: Iterable[Guest]) -> None:
    """Probe the guests without a recent sign of life, and wait a moment for those that may answer."""
    with trio.move_on_after(LIST_TIMEOUT):
        await _answers([(guest, daemon.probe(guest.name, FRESH)) for guest in guests])


async def _answers(asked: Iterable[tuple[Guest, trio.Event | None]]) -> None:
    for guest, answered in asked:
        # Do not wait for a guest that has already left a question unanswered.
        if answered is not None and guest.model.channel is not State.SILENT and guest.model.probes <= 1:
            await answered.wait()


def _is_old(guest: Guest) -> bool:
    report = guest.information
    if report is None or report.received.at < guest.model.entered.at:
        return True
    age = trio.current_time() - report.received.at
    return age >= (FRESH if report.address is not None else FRESH_UNKNOWN)
