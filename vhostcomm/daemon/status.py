"""Describe a service's state on one line, for `systemctl status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from vhostcomm.channel.guest import Guest
from vhostcomm.guest.model import State
from vhostcomm.text import counted

_WORDS: Final = {
    State.READY: "ready",
    State.SILENT: "silent",
    State.CONNECTED: "connected, not ready yet",
    State.ABSENT: "without QEMU",
    State.PAUSED: "paused",
}


PAUSES_SHOWN: Final = 2
"""Paused guests to name with their causes; the list of guests shows all."""

CAUSE_SHOWN: Final = 60
"""Maximum characters of a cause."""


def of_guests(guests: Mapping[str, Guest], not_reloaded: str = "", warnings: Sequence[str] = ()) -> str:
    """Describe how many guests are served and their states; also why the last reload was rejected, if it was.

    Warnings follow at the end.
    """
    counts = Counter(guest.state for guest in guests.values())
    states = ", ".join(f"{counts[state]} {words}" for state, words in _WORDS.items() if counts[state])
    paused = [guest for guest in guests.values() if guest.state is State.PAUSED]
    causes = [f"{guest.name}: {_cause(guest)}" for guest in paused[:PAUSES_SHOWN]]
    if causes:
        more = f"; and {len(paused) - PAUSES_SHOWN} more" if len(paused) > PAUSES_SHOWN else ""
        states += f" ({'; '.join(causes)}{more})"
    line = f"{counted(len(guests), 'guest')} served{f': {states}' if states else ''}"
    return "; ".join((line, *([f"not reloaded: {not_reloaded}"] if not_reloaded else []), *warnings))


def of_launched(guest: Guest, stage: str, *, runs: bool) -> str:
    """Describe the state of a launched guest, and the stage of its stop, if any."""
    if not runs:
        return f"{guest.name}: no QEMU runs"
    address = guest.information.address if guest.information else None
    how = _WORDS[guest.state]
    if guest.state is State.PAUSED:
        how += f" ({_cause(guest)})"
    elif address and guest.state is State.READY:
        how += f" at {address}"
    return f"{guest.name}: {how}; stopping by {stage}" if stage else f"{guest.name}: {how}"


def _cause(guest: Guest) -> str:
    cause = guest.model.pause.cause if guest.model.pause else ""
    return cause if len(cause) <= CAUSE_SHOWN else f"{cause[: CAUSE_SHOWN - 1]}…"
