from __future__ import annotations

import pytest

from tests.vchannel.feeding import drain
from vchannel import Connection, Event, Request, Role, SkipReason
from vhostcomm.capture.format import Direction, FrameRecord, Record, SkippedRecord
from vhostcomm.capture.record import Recorder


class Live:
    """A connection with a recorder. A read, a write and a silence each take a second."""

    def __init__(self, role: Role) -> None:
        self.connection, self.recorder = Connection(role), Recorder(role)
        self.records: list[Record] = []
        self.streams = dict.fromkeys(Direction, b"")
        self._time = 0
        self._from, self._to = (
            (Direction.TO_HOST, Direction.TO_GUEST) if role is Role.HOST else (Direction.TO_GUEST, Direction.TO_HOST)
        )

    def receive(self, data: bytes) -> None:
        self.streams[self._from] += data
        self.connection.receive_data(data)
        self._take(drain(self.connection))

    def silence(self, why: SkipReason = SkipReason.SILENCE) -> None:
        self.connection.discard_partial(why)
        self._take(drain(self.connection))

    def send(self, raw: bytes) -> None:
        self.streams[self._to] += raw
        self._time += 1
        self.records += self.recorder.sent(self._time, raw)

    def close(self) -> list[Record]:
        self.silence(SkipReason.CLOSED)
        self.records += self.recorder.close()
        return self.records

    def _take(self, events: list[Event]) -> None:
        self._time += 1
        for event in events:
            self.records += self.recorder.received(self._time, event)


GOOD = Request.of(5).raw
BAD = GOOD[:44] + b"\xff\xff\xff\xff" + GOOD[48:]


def record(*pieces: bytes) -> list[Record]:
    live = Live(Role.HOST)
    for piece in pieces:
        live.receive(piece)
    return live.close()


@pytest.mark.parametrize("junk", [b"j" * 10, b"j" * 4095, b"j" * 5000, bytes(9000)])
def test_a_recording_has_every_byte(junk: bytes) -> None:
    stream = [junk[:50], junk[50:] + GOOD, GOOD[:100]]
    made = record(*stream)
    assert b"".join(each.raw for each in made) == b"".join(stream)


def test_a_refused_frame_is_shown_by_its_fields() -> None:
    refused, good = record(BAD, GOOD)
    assert isinstance(refused, FrameRecord)
    assert refused.frame.request_length == -1
    assert refused.refused == "request_length is -1: a length is 0..4032"
    assert isinstance(good, FrameRecord)
    assert good.refused == ""


def test_records_are_in_the_order_of_the_stream() -> None:
    """A frame is sent before the end of a refused one is known; the skipped bytes of the refused one come first."""
    live = Live(Role.HOST)
    live.receive(BAD)
    assert live.records == []
    live.send(GOOD)
    live.receive(GOOD)
    skipped, sent, rest, good = live.close()
    assert isinstance(skipped, SkippedRecord)
    assert isinstance(rest, SkippedRecord)
    assert skipped.raw + rest.raw == BAD
    assert (sent.direction, good.direction) == (Direction.TO_GUEST, Direction.TO_HOST)
    assert [each.time for each in (skipped, sent, rest, good)] == [1, 2, 3, 3]


def test_a_refusal_whose_bytes_have_not_come_yet_waits_for_them() -> None:
    connection, recorder = Connection(Role.HOST), Recorder(Role.HOST)
    connection.receive_data(BAD + GOOD)
    refused, *events = drain(connection)
    assert list(recorder.received(0, refused)) == []
    (sent,) = recorder.sent(1, GOOD)
    assert sent.direction is Direction.TO_GUEST
    first, _ = [record for event in events for record in recorder.received(2, event)]
    assert isinstance(first, FrameRecord)
    assert first.refused
