"""Events of a connection and the frames it sends → records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from attrs import define

from vchannel import (
    FRAME_SIZE,
    BytesSkipped,
    Event,
    Frame,
    FrameRefused,
    NeedData,
    Request,
    Response,
    Role,
    SkipReason,
    UnsolicitedResponse,
)
from vhostcomm.capture.format import Direction, FrameRecord, Record, SkippedRecord


@define
class _Refused:
    """A refused header and the skipped bytes that have followed it so far."""

    time: float
    why: str
    raw: bytes = b""


class Recorder:
    """Makes the records of one connection, in order.

    Bytes skipped behind a refused header become one record: a frame with the reason where they
    turn out to be a whole frame's 4096 (whose fields can then be read by name), else skipped
    bytes. So they come when that is known, or as skipped bytes when a frame is sent meanwhile: the
    order of the records is that in which things happened. `close` hands out what is left.

    Args:
        role: which end the connection is.
    """

    def __init__(self, role: Role) -> None:
        self._incoming, self._outgoing = (
            (Direction.TO_HOST, Direction.TO_GUEST) if role is Role.HOST else (Direction.TO_GUEST, Direction.TO_HOST)
        )
        self._refused: _Refused | None = None

    def received(self, time: float, event: Event) -> Iterator[Record]:
        """The records that an event completes; `time` is in seconds since the start."""
        match event:
            case Request() | Response() | UnsolicitedResponse():
                yield from self.close()
                yield FrameRecord(time, self._incoming, Frame.decode(event.raw))
            case FrameRefused():
                yield from self.close()
                self._refused = _Refused(time, str(event.refusal))
            case BytesSkipped(data=data, reason=SkipReason.OUT_OF_STEP) if self._refused:
                self._refused.raw += data
                if len(self._refused.raw) == FRAME_SIZE:
                    frame = Frame.decode(self._refused.raw)
                    yield FrameRecord(self._refused.time, self._incoming, frame, self._refused.why)
                    self._refused = None
            case BytesSkipped():
                yield from self.close()
                yield SkippedRecord(time, self._incoming, event.data, event.reason)
            case NeedData.NEED_DATA:
                pass
            case _:
                assert_never(event)

    def sent(self, time: float, raw: bytes) -> Iterator[Record]:
        """The records up to a frame that was sent."""
        if self._refused and self._refused.raw:
            yield from self.close()
        yield FrameRecord(time, self._outgoing, Frame.decode(raw))

    def close(self) -> Iterator[Record]:
        """What is still held back: at most one record."""
        refused, self._refused = self._refused, None
        if refused and refused.raw:
            yield SkippedRecord(refused.time, self._incoming, refused.raw, SkipReason.OUT_OF_STEP)
