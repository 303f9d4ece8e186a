from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchannel import Frame, Request, SkipReason
from vhostcomm.capture.format import (
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    SkippedRecord,
    format_capture,
    format_header,
    format_record,
)
from vhostcomm.capture.reading import read_capture
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
    st.builds(
        SkippedRecord,
        times,
        st.sampled_from(Direction),
        st.binary(min_size=1, max_size=100),
        st.sampled_from(SkipReason),
    ),
)


@pytest.mark.slow
@given(st.lists(records, max_size=5))
def test_any_records_survive_writing_and_reading(made: list[FrameRecord | SkippedRecord]) -> None:
    capture = Capture(HEADER, tuple(made))
    lines = list(format_capture(capture))
    assert len(lines) == len(made) + 1
    assert all(line.isascii() and line.count("\n") == 1 for line in lines)
    again = read_capture(lines)
    assert [record.raw for record in again.records] == [record.raw for record in made]
    assert list(format_capture(again)) == lines


def test_a_records_line_is_readable() -> None:
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
def test_text_data_is_written_as_text(data: bytes, key: str, shown: str) -> None:
    line = format_record(FrameRecord(0, Direction.TO_HOST, Request.of(17, data).frame))
    assert json.loads(line)[key] == shown
    assert read_capture([format_header(HEADER), line]).records[0].raw[64 : 64 + len(data)] == data


def test_command_names_are_of_the_requesters_namespace() -> None:
    to_guest = Request.of(10).frame
    assert json.loads(format_record(FrameRecord(0, Direction.TO_GUEST, to_guest)))["name"] == "GET_INFORMATION"
    assert json.loads(format_record(FrameRecord(0, Direction.TO_HOST, to_guest)))["name"] == "NETWORK_RESULT"


@pytest.mark.parametrize("cut", [1, 30, len(GOOD) - 2])
def test_an_incomplete_last_line_is_reported_and_not_fatal(cut: int) -> None:
    capture = read_capture([format_header(HEADER), GOOD, GOOD[:cut]])
    assert len(capture.records) == 1
    assert capture.cut_off == GOOD[:cut]


@pytest.mark.parametrize("last", ["\n", "{\n", GOOD[:30] + "\n", "garbage\n"])
def test_invalid_last_line_with_a_newline_is_an_error(last: str) -> None:
    """A crash leaves a line without a newline, but an editor may have added one. Only the last line's error explains that."""
    with pytest.raises(CaptureError, match=r"^x:3: not a line of JSON .*; it is the last line: .* delete it, and"):
        read_capture([format_header(HEADER), GOOD, last], "x")
    assert len(read_capture([format_header(HEADER), GOOD], "x").records) == 1
    with pytest.raises(CaptureError, match=r"^x:2: not a line of JSON") as caught:
        read_capture([format_header(HEADER), last, GOOD], "x")
    assert "delete" not in str(caught.value)


def test_byte_order_mark_is_skipped() -> None:
    assert read_capture(["\ufeff" + format_header(HEADER), GOOD]) == read_capture([format_header(HEADER), GOOD])
    with pytest.raises(CaptureError, match=r"^x:2: not a line of JSON"):
        read_capture([format_header(HEADER), "\ufeff" + GOOD], "x")


def test_the_most_that_is_skipped_at_once() -> None:
    whole = SkippedRecord(0, Direction.TO_HOST, bytes(4096), SkipReason.SILENCE)
    assert read_capture([format_header(HEADER), format_record(whole)]).records == (whole,)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([GOOD, format_record(SkippedRecord(0, Direction.TO_HOST, b"j", SkipReason.SILENCE)), None]),
    st.sampled_from([*json.loads(GOOD), "skipped", "size", "hex", "padding_hex", "data_hex", "assumed", "refused"]),
    values,
)
def test_any_line_is_read_or_rejected_with_its_place(line: str | None, key: str, value: object) -> None:
    first = format_header(HEADER)
    changed = json.dumps(json.loads(line or first) | {key: value}) + "\n"
    try:
        read_capture([changed] if line is None else [first, changed], "x")
    except CaptureError as error:
        assert error.line == (1 if line is None else 2)  # noqa: PT017


def test_cut_off_in_the_middle_of_a_letter() -> None:
    """A crash may cut a capture anywhere. Captures are ASCII, so the rest is valid text."""
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
        (edited(t=-1), "t is -1, not seconds"),
        (edited(t=float("nan")), "t is nan"),
        (edited(dir="up"), "'up' is not a valid Direction"),
        (edited(command="5"), "command is '5', not int"),
        (edited(command=True), "command is True"),
        (edited(command=1 << 40), "command is 1099511627776"),
        (edited(request_id=1), "request_id is 1, not str"),
        (edited(request_id="0xq"), "request_id is '0xq', not 0x and up to 16"),
        (edited(request_id=" 1_0 "), "request_id is ' 1_0 '"),
        (edited(request_id="0x11112222333344445"), "request_id is '0x1111"),
        (edited(guest_uuid="1"), "guest_uuid is '1', not a UUID"),
        (edited(guest_uuid="urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "not a UUID"),
        (edited(guest_uuid="{6ba7b8109dad11d180b400c04fd430c8}"), "not a UUID"),
        (edited(name=5), "name is 5, not str"),
        (edited(assumed="data"), "assumed is 'data', not list"),
        (edited(assumed=[1, {}]), "assumed names 1"),
        (edited(assumed=["command", "10.0.0.7"]), "assumed names '10.0.0.7'"),
        (edited(text="\ud800"), "surrogates not allowed"),
        (GOOD.replace('"command"', '"command": 4, "command"'), "'command' is given twice"),
        (GOOD.replace('"t": 1.5', '"t": 1' + "0" * 400), "not seconds since the start"),
        (GOOD.replace('"t": 1.5', '"t": 1' + "0" * 5000), "4300"),
        (GOOD.replace('"t": 1.5', '"t": ' + "[" * 800 + "]" * 800), "t is"),
        (edited(text="x"), "2 bytes of data, but the length fields say 0"),
        (edited(text="x", data_hex="78"), "data is given once"),
        (edited(padding_hex="0"), "padding_hex is '0', not pairs"),
        (edited(padding_hex="01 02"), "padding_hex is '01 02', not pairs"),
        (edited(padding_hex="00" * 4033), "data of 4033 bytes"),
        (edited(colour="red"), "unknown: 'colour'"),
        ('{"t": 0, "dir": "guest>host", "skipped": "silence", "size": 1, "hex": "ffff"}', "size is 1"),
        ('{"t": 0, "dir": "guest>host", "skipped": "silence", "size": 4097, "hex": ""}', "size is 4097"),
        ('{"t": 0, "dir": "guest>host", "skipped": "silence", "size": 0, "hex": ""}', "size is 0"),
        ('{"t": 0, "dir": "guest>host", "skipped": "bored", "size": 1, "hex": ""}', "'bored' is not"),
    ],
)
def test_invalid_line_is_reported_with_its_place(line: str, what: str) -> None:
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
        ([format_header(HEADER).replace('re": 1', 're": true')], "vchannel_capture is True, not int"),
        ([format_header(HEADER).replace("+00:00", "")], "offset from UTC"),
        ([format_header(HEADER).replace('"recorded"', '"guessed"')], "'guessed' is not a valid Origin"),
        ([format_header(HEADER).replace('"redacted": false', '"redacted": 0')], "redacted is 0, not bool"),
        ([format_header(HEADER).replace('"producer"', '"maker"')], "'producer' is missing"),
    ],
)
def test_invalid_first_line_is_reported(lines: list[str], what: str) -> None:
    with pytest.raises(CaptureError, match=r"^x:1: ") as caught:
        read_capture(lines, "x")
    assert what in str(caught.value)
