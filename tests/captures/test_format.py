from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vchannel.feeding import drain
from vchannel import Connection, Frame, Request, Role, SkipReason
from vhostcomm.capture import (
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    Record,
    Recorder,
    SkippedRecord,
    format_capture,
    format_header,
    format_record,
    read_capture,
)
from vhostcomm.errors import CaptureError

HEADER = CaptureHeader(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "test", Origin.RECORDED, "from a test")
GOOD = format_record(FrameRecord(1.5, Direction.TO_HOST, Request.of(5, request_id=1).frame))

frames = st.one_of(
    st.builds(
        lambda data, command: Request.of(command, data).frame,
        st.one_of(st.binary(max_size=40), st.text(max_size=10).map(str.encode), st.just(b"text\0")),
        st.integers(-5, 30),
    ),
    st.builds(lambda head, tail: Frame.decode(head.ljust(4000, b"\0") + tail.ljust(96, b"\0")),
              st.binary(max_size=80), st.binary(max_size=96)),
)  # fmt: skip
times = st.floats(0, 1e6).map(lambda time: round(time, 6))
records = st.one_of(
    st.builds(
        FrameRecord,
        times,
        st.sampled_from(Direction),
        frames,
        st.sampled_from(["", "why"]),
        st.sampled_from([(), ("command",)]),
    ),
    st.builds(SkippedRecord, times, st.sampled_from(Direction), st.binary(max_size=100), st.sampled_from(SkipReason)),
)


@given(st.lists(records, max_size=5))
def test_any_records_come_back(made: list[FrameRecord | SkippedRecord]) -> None:
    capture = Capture(HEADER, tuple(made))
    lines = list(format_capture(capture))
    assert len(lines) == len(made) + 1
    assert all(line.isascii() and line.count("\n") == 1 for line in lines)
    again = read_capture(lines)
    assert [record.raw for record in again.records] == [record.raw for record in made]
    assert list(format_capture(again)) == lines


def test_a_line_reads_well() -> None:
    frame = Request.of(5, request_id=0xC0FFEE).reply(b"0000000000000\0").frame
    line = json.loads(format_record(FrameRecord(0.25, Direction.TO_GUEST, frame)))
    assert line == {
        "t": 0.25,
        "dir": "host>guest",
        "name": "GUEST_SERIAL",
        "request_id": "0x0000000000c0ffee",
        "guest_uuid": "00000000-0000-0000-0000-000000000000",
        "guest_id": 10000000,
        "is_request": 0,
        "is_response": 1,
        "needs_response": 0,
        "request_length": 0,
        "response_length": 14,
        "command": 5,
        "sub_command": 1,
        "reserved": 0,
        "text": "0000000000000",
    }


@pytest.mark.parametrize(
    ("data", "key", "shown"),
    [
        (b"a\tb\n\0", "text", "a\tb\n"),
        (b"\0", "text", ""),
        (b"no nul", "text_without_nul", "no nul"),
        (b"\x1b[31m\0", "data_hex", "1b5b33316d00"),
        (b"a\0b\0", "data_hex", "61006200"),
        (b"\xff", "data_hex", "ff"),
        ("grün\0".encode(), "text", "grün"),
    ],
)
def test_data_is_text_where_it_is_text(data: bytes, key: str, shown: str) -> None:
    line = format_record(FrameRecord(0, Direction.TO_HOST, Request.of(17, data).frame))
    assert json.loads(line)[key] == shown
    assert read_capture([format_header(HEADER), line]).records[0].raw[64 : 64 + len(data)] == data


def test_names_are_of_who_asked() -> None:
    to_guest = Request.of(10).frame
    assert json.loads(format_record(FrameRecord(0, Direction.TO_GUEST, to_guest)))["name"] == "GET_INFORMATION"
    assert json.loads(format_record(FrameRecord(0, Direction.TO_HOST, to_guest)))["name"] == "NETWORK_RESULT"


@pytest.mark.parametrize("cut", [1, 30, len(GOOD) - 2])
def test_a_last_line_cut_off_is_told_not_fatal(cut: int) -> None:
    capture = read_capture([format_header(HEADER), GOOD, GOOD[:cut]])
    assert len(capture.records) == 1
    assert capture.cut_off == GOOD[:cut]


def test_cut_off_in_the_middle_of_a_letter() -> None:
    """A file's reader must not choke on what a crash left: captures are ASCII, so any cut is text."""
    assert GOOD.isascii()


def edited(**changes: object) -> str:
    line = json.loads(GOOD) | changes
    return json.dumps({key: value for key, value in line.items() if value is not None})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("", "not a line of JSON"),
        ("{", "not a line of JSON"),
        ("[" * 10_000, "not a line of JSON"),
        ("[1]", "one JSON object"),
        (edited(t=None), "'t' is missing"),
        (edited(t="1"), "t is '1', not int or float"),
        (edited(t=-1), "t is -1.0, not seconds"),
        (edited(t=float("nan")), "t is nan"),
        (edited(dir="up"), "'up' is not a valid Direction"),
        (edited(command="5"), "command is '5', not int"),
        (edited(command=True), "command is True"),
        (edited(command=1 << 40), "command is 1099511627776"),
        (edited(request_id=1), "request_id is 1, not str"),
        (edited(request_id="0xq"), "invalid literal"),
        (edited(guest_uuid="1"), "badly formed"),
        (edited(text="x"), "2 bytes of data, and the length fields say 0"),
        (edited(text="x", data_hex="78"), "data is given once"),
        (edited(padding_hex="0"), "non-hexadecimal"),
        (edited(padding_hex="00" * 4033), "data of 4033 bytes"),
        (edited(colour="red"), "unknown: 'colour'"),
        ('{"t": 0, "dir": "guest>host", "skipped": "silence", "size": 1, "hex": "ffff"}', "size is 1"),
        ('{"t": 0, "dir": "guest>host", "skipped": "silence", "size": 99999999, "hex": ""}', "size is 99999999"),
        ('{"t": 0, "dir": "guest>host", "skipped": "bored", "size": 1, "hex": ""}', "'bored' is not"),
    ],
)
def test_a_bad_line_has_a_place(line: str, what: str) -> None:
    with pytest.raises(CaptureError) as caught:
        read_capture([format_header(HEADER), GOOD, line, GOOD], "x.jsonl")
    assert str(caught.value).startswith("x.jsonl:3: ")
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "empty"),
        (["{"], "not a line of JSON"),
        (["{}"], 'no "vchannel_capture"'),
        (['{"vchannel_capture": 2}'], "format version 2; this program reads 1"),
        ([format_header(HEADER).replace("+00:00", "")], "offset from UTC"),
        ([format_header(HEADER).replace('"recorded"', '"guessed"')], "'guessed' is not a valid Origin"),
        ([format_header(HEADER).replace('"redacted": false', '"redacted": 0')], "redacted is 0, not bool"),
        ([format_header(HEADER).replace('"producer"', '"maker"')], "'producer' is missing"),
    ],
)
def test_a_bad_first_line(lines: list[str], what: str) -> None:
    with pytest.raises(CaptureError, match=r"^x:1: ") as caught:
        read_capture(lines, "x")
    assert what in str(caught.value)


# -- recording


def record(*pieces: bytes) -> list[Record]:
    connection, recorder = Connection(Role.HOST), Recorder(Role.HOST)
    made: list[Record] = []
    for time, piece in enumerate(pieces):
        connection.receive_data(piece)
        for event in drain(connection):
            made += recorder.received(time, event)
    connection.discard_partial(SkipReason.CLOSED)
    for event in drain(connection):
        made += recorder.received(len(pieces), event)
    return made + list(recorder.close())


GOOD_RAW = Request.of(5).raw


@pytest.mark.parametrize("junk", [b"j" * 10, b"j" * 4095, b"j" * 5000, bytes(9000)])
def test_what_is_recorded_comes_back_exactly(junk: bytes) -> None:
    stream = [junk[:50], junk[50:] + GOOD_RAW, GOOD_RAW[:100]]
    made = record(*stream)
    assert b"".join(each.raw for each in made) == b"".join(stream)


def test_a_refused_frame_is_shown_by_its_fields() -> None:
    bad = GOOD_RAW[:44] + b"\xff\xff\xff\xff" + GOOD_RAW[48:]
    refused, good = record(bad, GOOD_RAW)
    assert isinstance(refused, FrameRecord)
    assert refused.frame.request_length == -1
    assert refused.refused == "request_length is -1: a length is 0..4032"
    assert isinstance(good, FrameRecord)
    assert good.refused == ""
