from __future__ import annotations

import attrs

from tests.captures.test_format import HEADER
from vchannel import HostCommand, Request, SkipReason, encode_text
from vhostcomm.capture import Capture, Direction, FrameRecord, Record, SkippedRecord, compare


def question(command: int, answer: bytes) -> list[Record]:
    asked = Request.of(command)
    return [
        FrameRecord(0, Direction.TO_HOST, asked.frame),
        FrameRecord(0.1, Direction.TO_GUEST, asked.reply(answer).frame),
    ]


def capture(*records: Record) -> Capture:
    return Capture(HEADER, records)


def differences(a: Capture, b: Capture, *, request_ids: bool = False) -> list[str]:
    return [str(each) for each in compare(a, b, request_ids=request_ids)]


def session(serial: bytes = encode_text("1")) -> list[Record]:
    return [*question(HostCommand.GUEST_SERIAL, serial), *question(HostCommand.GUEST_UUID, b"u\0")]


def test_ids_and_times_may_differ() -> None:
    later = [attrs.evolve(record, time=record.time + 5) for record in session()]
    assert differences(capture(*session()), capture(*later)) == []
    assert len(differences(capture(*session()), capture(*session()), request_ids=True)) == 4


def test_which_records_share_an_id_may_not() -> None:
    one, other = session(), session()
    assert isinstance(other[3], FrameRecord)
    assert isinstance(other[0], FrameRecord)
    other[3] = attrs.evolve(other[3], frame=attrs.evolve(other[3].frame, request_id=other[0].frame.request_id))
    (difference,) = differences(capture(*one), capture(*other))
    assert "GUEST_UUID request_id" in difference


def test_fields_that_differ_are_named_with_their_lines() -> None:
    assert differences(capture(*session()), capture(*session(encode_text("22")))) == [
        "    3 | 3  GUEST_SERIAL response_length: 2 | 3",
        "    3 | 3  GUEST_SERIAL data: b'1\\x00' | b'22\\x00'",
    ]


def test_records_that_only_one_has() -> None:
    one = session()
    assert differences(capture(*one), capture(*one[:2])) == [
        "    4 | -  only in the first: guest>host request GUEST_UUID b''",
        "    5 | -  only in the first: host>guest response GUEST_UUID b'u\\x00'",
    ]
    assert len(differences(capture(*one[2:]), capture(*one))) == 2


def test_records_of_different_kinds() -> None:
    skipped = SkippedRecord(0, Direction.TO_HOST, b"junk", SkipReason.SILENCE)
    assert differences(capture(skipped), capture(skipped)) == []
    (difference,) = differences(capture(session()[0]), capture(skipped))
    assert "request GUEST_SERIAL" in difference
    assert "4 bytes skipped (silence)" in difference
    (difference,) = differences(capture(skipped), capture(attrs.evolve(skipped, raw=b"punk!")))
    assert "5 bytes skipped" in difference
    direction, *fields = differences(capture(question(200, b"")[0]), capture(question(200, b"")[1]))
    assert "direction: guest>host | host>guest" in direction
    assert [field.split()[5] for field in fields] == ["is_request:", "is_response:", "needs_response:"]


def test_a_changed_direction() -> None:
    one = session()[0]
    (difference,) = differences(capture(one), capture(attrs.evolve(one, direction=Direction.TO_GUEST)))
    assert "direction: guest>host | host>guest" in difference
