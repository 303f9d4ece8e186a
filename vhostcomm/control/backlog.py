"""Events that wait for one client: merged by guest and kind, sent guest by guest, limited in bytes."""

from __future__ import annotations

from typing import Any, Final

from attrs import define, field

BACKLOG_BYTES: Final = 1 << 20
"""Maximum bytes of events that wait for one client: several for each of a thousand guests. Others are only counted."""

EVENT_BYTES: Final = 512
"""Memory of an event in addition to its text, in bytes."""


@define
class _Waiting:
    facts: dict[str, Any]
    size: int
    times: int = 1


@define
class Backlog:
    """Events in the order of sending.

    An event replaces a waiting one of the same guest and kind, with a count of both. So a guest that repeats the same
    event a thousand times has only one waiting. Guests take turns, so none delays another's events.
    """

    size: int = field(default=0, init=False)
    """Bytes of all waiting events."""
    _guests: dict[str, dict[str, _Waiting]] = field(factory=dict, init=False)
    """By guest, the next turn first, then by kind, the oldest first."""
    _lost: dict[str, int] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._guests)

    def put(self, guest: str, kind: str, facts: dict[str, Any]) -> None:
        """Add an event. An event without room is counted, and `take` reports the count."""
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
        """Remove and return the kind and facts of the next event; None if none waits.

        A merged event has `times` among its facts. The kind `lost` has the guest and the number of dropped events.
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
