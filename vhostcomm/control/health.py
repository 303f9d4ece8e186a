"""Health that is of now: guests are asked what they have told, where that is old."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import trio

from vchannel import GuestCommand
from vhostcomm.channel.calls import CallError
from vhostcomm.channel.guest import Guest, State
from vhostcomm.control import view
from vhostcomm.control.host import Host
from vhostcomm.errors import ServeError

FRESH: Final = 10.0
FRESH_UNKNOWN: Final = 1.0
"""Seconds for which a guest's information is new enough to tell its health; without an address in it for less."""

TIMEOUT: Final = 2.0
"""Seconds for a guest to tell its information."""


class Health:
    """Whether the guests of a daemon are well.

    Args:
        host: the daemon.
        nursery: where guests are asked; a client that goes doesn't end the question.
    """

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._asked: dict[str, float] = {}  # when the last answer came, or didn't in time
        self._asking: dict[str, trio.Event] = {}

    async def look(self) -> tuple[bool, dict[str, Any]]:
        """Whether all guests are well, and each that isn't with its reason. Takes at most a guest's time to answer."""
        guests = self._host.guests
        self._asked = {name: when for name, when in self._asked.items() if name in guests}
        waiting = [each for guest in guests.values() if (each := self._freshen(guest)) is not None]
        for each in waiting:
            await each.wait()  # which takes no longer than `TIMEOUT`
        return view.health(self._host.guests, self._host.not_reloaded)

    def _freshen(self, guest: Guest) -> trio.Event | None:
        """Ask a guest if what is known is old. Returns what to wait for; nothing where it is known that it doesn't answer."""
        known = guest.information is not None and guest.information.address is not None
        age = trio.current_time() - self._asked.get(guest.name, -FRESH)
        if (
            guest.state is State.READY
            and guest.name not in self._asking
            and age >= (FRESH if known and not guest.unanswered else FRESH_UNKNOWN)
        ):
            self._asking[guest.name] = trio.Event()
            self._nursery.start_soon(self._ask, guest.name)
        return None if guest.unanswered else self._asking.get(guest.name)

    async def _ask(self, name: str) -> None:
        with suppress(CallError, ServeError):
            await self._host.call(name, GuestCommand.GET_INFORMATION, timeout=TIMEOUT)
        self._asked[name] = trio.current_time()
        self._asking.pop(name).set()
