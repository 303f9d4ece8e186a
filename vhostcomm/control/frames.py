"""The frames of one guest for one client that follows them: all are counted, the latest are shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from vchannel import (
    BytesSkipped,
    Event,
    Frame,
    FrameRefused,
    Request,
    Response,
    UnsolicitedResponse,
    decode_text,
)
from vhostcomm.capture.format import Direction, FrameRecord, asked_by_guest, command_name
from vhostcomm.control import serialize
from vhostcomm.text import counted, escape

KEPT: Final = 50
"""Frames to show of those since the last look: as many as a person can follow, and 200 KiB."""

TEXT_SHOWN: Final = 300
"""Maximum characters of a frame's data."""


@define(eq=False)
class Frames:
    """Frames since the last `take`, the first of which causes a call of `first`.

    A guest may send any number of frames; each costs the same small time.
    """

    first: Callable[[], None]
    to_host: int = field(default=0, init=False)
    to_guest: int = field(default=0, init=False)
    _kept: deque[tuple[float, Direction, bytes | str]] = field(factory=lambda: deque(maxlen=KEPT), init=False)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def received(self, event: Event) -> None:
        match event:
            case Request() | Response() | UnsolicitedResponse():
                self.to_host += 1
                self._keep(Direction.TO_HOST, event.raw)
            case FrameRefused():
                self._keep(Direction.TO_HOST, f"frame refused: {event}")
            case BytesSkipped():
                self._keep(
                    Direction.TO_HOST, f"{counted(event.count, 'byte')} outside any frame ({event.reason.value})"
                )
            case _:
                pass

    def sent(self, raw: bytes) -> None:
        self.to_guest += 1
        self._keep(Direction.TO_GUEST, raw)

    def _keep(self, direction: Direction, what: bytes | str) -> None:
        if not self._kept:
            self.first()
        self._kept.append((time.time(), direction, what))

    def take(self) -> dict[str, Any]:
        """Return the counts and the latest frames, oldest first, and forget them."""
        shown = [_shown(*each) for each in self._kept]
        counted = {"to_host": self.to_host, "to_guest": self.to_guest}
        self._kept.clear()
        self.to_host = self.to_guest = 0
        return counted | {"frames": shown}


def _shown(when: float, direction: Direction, what: bytes | str) -> dict[str, Any]:
    about: dict[str, Any] = {"when": serialize.when(when), "direction": direction.value}
    if isinstance(what, str):
        no_frame = dict.fromkeys(("command", "name", "id"))
        return about | no_frame | {"kind": "skipped", "by": "guest", "text": escape(what, TEXT_SHOWN)}
    frame = Frame.decode(what)
    record = FrameRecord(0, direction, frame)
    kind = "answer" if frame.is_response else "question" if frame.needs_response else "notice"
    return about | {
        "kind": kind,
        "by": "guest" if asked_by_guest(record) else "host",
        "command": frame.command,
        "name": command_name(record).lower() or None,
        "id": f"{frame.request_id:#x}",
        "text": escape(decode_text(frame.data[: 4 * TEXT_SHOWN]), TEXT_SHOWN),
    }
