"""Record a connection: its events and the frames that it sends → records."""

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
    """A refused header and the skipped bytes since then."""

    time: float
    why: str
    raw: bytes = b""


class Recorder:
    """Makes the records of one connection, which has this role, in order.

    The bytes skipped after a refused header become one record. If they are 4096 bytes, a whole frame, the record is
    that frame with the reason of the refusal, and its fields can be read by name. Otherwise it is skipped bytes. The
    record is delayed until its end is known, or until a frame is sent: records are in the order of events. `close`
    returns a delayed record.
    """

    def __init__(self, role: Role) -> None:
        self._incoming, self._outgoing = (
            (Direction.TO_HOST, Direction.TO_GUEST) if role is Role.HOST else (Direction.TO_GUEST, Direction.TO_HOST)
        )
        self._refused: _Refused | None = None

    def received(self, time: float, event: Event) -> Iterator[Record]:
        """Yield the records that an event completes; `time` is in seconds since the start."""
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
        """Yield the record of a sent frame, after any delayed record."""
        if self._refused and self._refused.raw:
            yield from self.close()
        yield FrameRecord(time, self._outgoing, Frame.decode(raw))

    def close(self) -> Iterator[Record]:
        """Yield the delayed record, if any."""
        refused, self._refused = self._refused, None
        if refused and refused.raw:
            yield SkippedRecord(refused.time, self._incoming, refused.raw, SkipReason.OUT_OF_STEP)
