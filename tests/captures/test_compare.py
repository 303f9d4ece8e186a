from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.make_golden import request
from tests.captures.test_format import HEADER
from vchannel import HostCommand, Request, SkipReason, encode_text
from vhostcomm.capture import compare as comparing
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord


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


def test_pairs_of_request_ids_must_match() -> None:
    one, other = session(), session()
    assert isinstance(other[3], FrameRecord)
    assert isinstance(other[0], FrameRecord)
    other[3] = attrs.evolve(other[3], frame=attrs.evolve(other[3].frame, request_id=other[0].frame.request_id))
    (difference,) = differences(capture(*one), capture(*other))
    assert "GUEST_UUID request_id" in difference


def test_fields_that_differ_are_named_with_their_lines() -> None:
    assert differences(capture(*session()), capture(*session(encode_text("22")))) == [
        "    3 | 3  GUEST_SERIAL response_length: 2 | 3",
        "    3 | 3  GUEST_SERIAL data: '1\\x00' | '22\\x00'",
    ]


def test_records_in_only_one_capture_are_reported() -> None:
    one = session()
    assert differences(capture(*one), capture(*one[:2])) == [
        "    4 | -  only in the first: guest>host request GUEST_UUID ''",
        "    5 | -  only in the first: host>guest response GUEST_UUID 'u\\x00'",
    ]
    assert len(differences(capture(*one[2:]), capture(*one))) == 2


def test_records_of_different_kinds() -> None:
    skipped = SkippedRecord(0, Direction.TO_HOST, b"junk", SkipReason.SILENCE)
    assert differences(capture(skipped), capture(skipped)) == []
    (difference,) = differences(capture(session()[0]), capture(skipped))
    assert "request GUEST_SERIAL" in difference
    assert "4 bytes skipped (silence)" in difference
    (difference,) = differences(capture(skipped), capture(attrs.evolve(skipped, raw=b"punk!")))
    assert "4 bytes skipped (silence) 'junk' | guest>host 5 bytes skipped (silence) 'punk!'" in difference
    (difference,) = differences(capture(skipped), capture(attrs.evolve(skipped, raw=b"punk")))
    assert difference.endswith("guest>host 4 bytes skipped: 'junk' | 'punk'")
    direction, *fields = differences(capture(question(200, b"")[0]), capture(question(200, b"")[1]))
    assert "direction: guest>host | host>guest" in direction
    assert [field.split()[5] for field in fields] == ["is_request:", "is_response:", "needs_response:"]


def test_a_changed_direction() -> None:
    one = session()[0]
    (difference,) = differences(capture(one), capture(attrs.evolve(one, direction=Direction.TO_GUEST)))
    assert "direction: guest>host | host>guest" in difference


def test_difference_late_in_long_data_is_shown() -> None:
    skipped = SkippedRecord(0, Direction.TO_HOST, b"j" * 500 + b"AB", SkipReason.SILENCE)
    (difference,) = differences(capture(skipped), capture(attrs.evolve(skipped, raw=b"j" * 500 + b"CB")))
    assert difference.endswith("502 bytes skipped: from byte 500 on 'AB' | 'CB'")
    asked = Request.of(17, b"x" * 100)
    frame = FrameRecord(0, Direction.TO_HOST, asked.frame)
    other = attrs.evolve(frame, frame=attrs.evolve(asked.frame, data=b"x" * 99 + b"y"))
    assert differences(capture(frame), capture(other)) == ["    2 | 2  GUEST_TIMESTAMP data: from byte 99 on 'x' | 'y'"]


def test_refusals_are_compared_and_assumptions_are_not() -> None:
    frame = session()[0]
    assert isinstance(frame, FrameRecord)
    assert differences(capture(frame), capture(attrs.evolve(frame, assumed=("command",)))) == []
    assert differences(capture(frame), capture(attrs.evolve(frame, refused="reserved is 4"))) == [
        "    2 | 2  GUEST_SERIAL refused: '' | 'reserved is 4'"
    ]


def test_one_odd_id_is_one_difference() -> None:
    """The ids after it are paired as before."""
    one, other = session() + session(), session() + session()
    assert isinstance(other[0], FrameRecord)
    assert isinstance(other[3], FrameRecord)
    other[3] = attrs.evolve(other[3], frame=attrs.evolve(other[3].frame, request_id=other[0].frame.request_id))
    (difference,) = differences(capture(*one), capture(*other))
    assert difference.startswith("    5 | 5  GUEST_UUID request_id")


@pytest.mark.slow
def test_few_differences_in_long_captures() -> None:
    """Captures are longer than one step of the comparison. It reports exactly the records that one of them lacks."""
    commands = [5 + (place * place % 7 + place // 50) % 3 for place in range(4000)]
    one = [FrameRecord(0, Direction.TO_HOST, request(place, each)) for place, each in enumerate(commands)]
    gone = [FrameRecord(0, Direction.TO_HOST, request(5000, 99))]
    long, short = [*gone, *one[:1500], *gone, *one[1500:], *gone], one
    assert [difference.line_a for difference in compare(capture(*long), capture(*short))] == [2, 1503, 4004]
    assert [difference.line_b for difference in compare(capture(*short), capture(*long))] == [2, 1503, 4004]


commands = st.lists(st.integers(0, 3), max_size=40)


@pytest.mark.parametrize("limits", [{}, {"MATCHED_WHOLE": 0, "WINDOW": 5}])
@given(a=commands, b=commands)
def test_every_record_is_paired_or_reported_once(limits: dict[str, int], a: list[int], b: list[int]) -> None:
    """Each pair is reported, because the data differs. Equal captures, and equal records at an end, are paired."""
    one, other = (
        capture(*(FrameRecord(0, Direction.TO_HOST, request(0, each, data)) for each in commands))
        for commands, data in ((a, b"a"), (b, b"b"))
    )
    with pytest.MonkeyPatch.context() as patched:
        for name, value in limits.items():
            patched.setattr(comparing, name, value)
        found = list(dict.fromkeys((each.line_a, each.line_b) for each in compare(one, other)))
    assert [line for line, _ in found if line] == list(range(2, 2 + len(a)))
    assert [line for _, line in found if line] == list(range(2, 2 + len(b)))
    if a == b:
        assert all(line_a == line_b for line_a, line_b in found)
    elif a[:1] != b[:1] and a[-1:] == b[-1:]:
        assert found[-1] == (1 + len(a), 1 + len(b))
