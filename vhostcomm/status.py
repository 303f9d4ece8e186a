"""A service's state in a line, for people: what `systemctl status` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from vhostcomm.channel.guest import Guest
from vhostcomm.guest import State

_WORDS: Final = {
    State.READY: "ready",
    State.SILENT: "silent",
    State.PAUSED: "paused",
    State.CONNECTED: "connected, not ready yet",
    State.ABSENT: "without QEMU",
}


def of_guests(guests: Mapping[str, Guest], not_reloaded: str = "") -> str:
    """How many guests are served and how far they are; why the last reload wasn't taken, if it wasn't."""
    counts = Counter(guest.state for guest in guests.values())
    told = ", ".join(f"{counts[state]} {words}" for state, words in _WORDS.items() if counts[state])
    line = f"{len(guests)} guest{'' if len(guests) == 1 else 's'} served{f': {told}' if told else ''}"
    return f"{line}; not reloaded: {not_reloaded}" if not_reloaded else line


def of_launched(guest: Guest, stage: str, *, runs: bool) -> str:
    """How far a launched guest is, and by what it is being stopped, if it is."""
    if not runs:
        return f"{guest.name}: no QEMU runs"
    address = guest.information.address if guest.information else None
    how = _WORDS[guest.state] + (f" at {address}" if address and guest.state is State.READY else "")
    return f"{guest.name}: {how}; stopping by {stage}" if stage else f"{guest.name}: {how}"
