"""Events that wait for one client: merged by guest and kind, handed out guest by guest, limited in bytes."""

from __future__ import annotations

from typing import Any, Final

from attrs import define, field

BACKLOG_BYTES: Final = 1 << 20
"""Bytes of events that wait for one client: several for each of a thousand guests. More are dropped and counted."""

EVENT_BYTES: Final = 512
"""Bytes that an event counts beside its own text: what Python needs for it."""


@define
class _Waiting:
    facts: dict[str, Any]
    size: int
    times: int = 1


@define
class Backlog:
    """Events in the order in which they are to be sent.

    An event of a guest takes the place of a waiting one of the same kind, with a count of both: a guest that does the same a
    thousand times has one event waiting. Guests take turns, so none keeps another's events from being sent.
    """

    size: int = field(default=0, init=False)
    """Bytes of all that waits."""
    _guests: dict[str, dict[str, _Waiting]] = field(factory=dict, init=False)
    """By guest, whose turn comes first first, and kind, oldest first."""
    _lost: dict[str, int] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._guests)

    def put(self, guest: str, kind: str, facts: dict[str, Any]) -> None:
        """Add an event. One that finds no room is counted, and `take` tells of it."""
        waiting = self._guests.get(guest, {})
        before = waiting.get(kind)
        size = EVENT_BYTES + sum(len(value) for value in facts.values() if isinstance(value, str))
        if self.size + size - (before.size if before else 0) > BACKLOG_BYTES:
            self._lost[guest] = self._lost.get(guest, 0) + 1
            return
        if before:
            del waiting[kind]
            self.size -= before.size
        waiting[kind] = _Waiting(facts, size, before.times + 1 if before else 1)
        self._guests.setdefault(guest, waiting)
        self.size += size

    def take(self) -> tuple[str, dict[str, Any]] | None:
        """The next event, its kind and its facts; None where none waits.

        `times` is among the facts of a merged one. A kind `lost` has the guest and the count of events that found no room.
        """
        if not self._guests:
            if not self._lost:
                return None
            guest = next(iter(self._lost))
            return "lost", {"guest": guest, "event": "lost", "count": self._lost.pop(guest)}
        guest = next(iter(self._guests))
        waiting = self._guests.pop(guest)
        kind = next(iter(waiting))
        event = waiting.pop(kind)
        self.size -= event.size
        if waiting:
            self._guests[guest] = waiting
        return kind, event.facts | ({"times": event.times} if event.times > 1 else {})
