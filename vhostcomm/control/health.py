"""Knowledge that is of now: guests are asked, where what they told is old."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import trio

from vhostcomm.channel.guest import Guest
from vhostcomm.control import serialize
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.guest import State

FRESH: Final = 10.0
FRESH_UNKNOWN: Final = 1.0
"""Seconds for which a guest's information is new enough; without an address in it for less."""

LIST_TIMEOUT: Final = 0.5
"""Seconds that a list waits for answers: a guest that is up takes a hundredth of that."""


async def freshen(daemon: DaemonApi, guests: Iterable[Guest]) -> None:
    """Ask the guests whose information is old, and wait for those that may answer, each for its own time at most."""
    old = [guest for guest in guests if guest.state is not State.READY or _is_old(guest)]
    await _answers([(guest, daemon.probe(guest.name, 0.0)) for guest in old])


async def look_for(daemon: DaemonApi, guests: Iterable[Guest]) -> None:
    """Ask the guests that gave no sign of life lately, and wait a moment for those that may answer."""
    with trio.move_on_after(LIST_TIMEOUT):
        await _answers([(guest, daemon.probe(guest.name, FRESH)) for guest in guests])


async def _answers(asked: Iterable[tuple[Guest, trio.Event | None]]) -> None:
    for guest, answered in asked:
        # One that left a question unanswered already isn't waited for.
        if answered is not None and guest.model.channel is not State.SILENT and guest.model.probes <= 1:
            await answered.wait()


def _is_old(guest: Guest) -> bool:
    told = guest.information
    if told is None or told.told.at < guest.model.entered.at:
        return True
    age = trio.current_time() - told.told.at
    return age >= (FRESH if told.address is not None else FRESH_UNKNOWN)


async def look(daemon: DaemonApi) -> tuple[bool, dict[str, Any]]:
    """Whether all guests are well, and each that isn't with its reason. Takes at most a guest's time to answer."""
    await freshen(daemon, daemon.guests.values())
    return serialize.health(daemon.guests, daemon.not_reloaded)
