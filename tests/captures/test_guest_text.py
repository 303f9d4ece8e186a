from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.test_format import HEADER
from tests.captures.test_golden import FILES, load
from vchannel import DATA_SIZE, GuestCommand, GuestInformation, HostCommand, Request
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, Direction, FrameRecord, format_capture
from vhostcomm.capture.guest_text import guest_data
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.capture.redact_text import Redactor
from vhostcomm.cli.app import app


def masked(data: bytes) -> bytes:
    return guest_data(data, False, Redactor())


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"Anna's NAS\0", b"xxxxxxxxxx\0"),
        (b"no NUL", b"xxxxxx"),
        ("Büro\0".encode(), b"xxxxx\0"),
        (b'"Anna"\0', b"xxxxxx\0"),
        (b"1650802981\0", b"xxxxxxxxxx\0"),
        (b'{"Anna": \0', b"xxxxxxxxx\0"),
        (b"\xffAnna\0", b"xxxxx\0"),
        (b"[" * 3000, b"x" * 3000),
        (b"", b""),
    ],
)
def test_text_becomes_x(data: bytes, left: bytes) -> None:
    assert masked(data) == left


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ('{"owner":"Anna","n":5,"on":true,"no":null}', '{"xxxxx":"xxxx","x":0,"xx":true,"xxx":null}'),
        ('{"a":1,"b":2,"xx":3}', '{"x":0,"xx":0,"xxx":0}'),
        ('[["Anna",1.5],{}]', '[["xxxx",0],{}]'),
        ('{"http_port":5000,"ip":"10.0.0.7"}', '{"xxxxxxxxx":0,"xx":"xxxxxxxx"}'),
        ('{"data":"Anna"}', '{"data":"xxxx"}'),
        ('{"data":{"ip":"10.0.0.7"}}', '{"data":{"ip":"xxxxxxxx"}}'),
        ('{"data":{"dsm_setting":{"data":{"http_port":123456}}}}', '{"data":{"dsm_setting":{"data":{"http_port":0}}}}'),
        ('{"data":{"ip":{"data":[{"ip":"fe80::1%anna"}]}}}', '{"data":{"ip":{"data":[{"ip":"xxxxxxxxxxxx"}]}}}'),
    ],
)
def test_json_keeps_its_shape(document: str, left: str) -> None:
    assert masked(document.encode() + b"\0") == left.encode() + b"\0"


def test_members_that_the_protocol_knows_stay() -> None:
    interfaces = [{"name": "eth0", "ip": "10.0.0.7", "mac": "02:11:32:2b:0f:e6"}, {"name": "annas-nas"}]
    document = {"data": {"dsm_setting": {"data": {"http_port": "5000"}}, "ip": {"data": interfaces}}}
    left = GuestInformation.from_data(masked(json.dumps(document).encode() + b"\0"))
    assert left.http_port == 5000
    assert [(each.name, each.ip) for each in left.interfaces] == [("eth0", "192.0.2.1"), ("xxxxxxxxx", None)]
    assert "02:11" not in str(left.document)


def answers(command: GuestCommand, data: bytes) -> bytes:
    record = FrameRecord(0, Direction.TO_HOST, Request.of(command).reply(data).frame)
    (left,) = redact(Capture(HEADER, (record,))).records
    assert isinstance(left, FrameRecord)
    return left.frame.data


def asks(command: HostCommand, data: bytes) -> bytes:
    (left,) = redact(Capture(HEADER, (FrameRecord(0, Direction.TO_HOST, Request.of(command, data).frame),))).records
    assert isinstance(left, FrameRecord)
    return left.frame.data


def test_integer_stays_if_the_protocol_defines_one() -> None:
    assert asks(HostCommand.GUEST_TIMESTAMP, b"1648798789\0") == b"1648798789\0"
    assert asks(HostCommand.GUEST_TIMESTAMP, b"Anna\0") == b"xxxx\0"
    assert asks(HostCommand.GUEST_INFO, b"1648798789\0") == b"xxxxxxxxxx\0"
    assert answers(GuestCommand.SET_NETWORK, b"17\0") == b"xx\0"  # 17 is a timestamp only in requests of the guest


def test_text_of_the_host_stays() -> None:
    reply = Request.of(HostCommand.HOST_MODEL).reply(b"Virtualhost\0").frame
    capture = redact(Capture(HEADER, (FrameRecord(0, Direction.TO_GUEST, reply),)))
    assert [record.frame.data for record in capture.records if isinstance(record, FrameRecord)] == [b"Virtualhost\0"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "ip", "x", "ä"]), inner),
    max_leaves=12,
)


@given(
    st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()[:DATA_SIZE]),
    st.sampled_from([HostCommand.GUEST_INFO, HostCommand.GUEST_TIMESTAMP]),
)
def test_masking_twice_changes_nothing(data: bytes, command: HostCommand) -> None:
    once = asks(command, data)
    assert asks(command, once) == once


STRUCTURE = ("is_request", "is_response", "needs_response", "command", "sub_command", "reserved")


def structure(capture: Capture) -> list[object]:
    """Return each record's direction and kind, and for accepted frames the header without ids and lengths."""
    return [
        (record.direction, *(getattr(record.frame, name) for name in STRUCTURE))
        if isinstance(record, FrameRecord) and not record.refused
        else (record.direction, type(record), len(record.raw))
        for record in capture.records
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_redacted_golden_captures_keep_their_structure(path: Path) -> None:
    capture = load(path)
    again = read_capture(format_capture(redact(capture)))
    assert structure(again) == structure(capture)
    if path.stem != "damage":  # its refused headers are masked completely
        differing = {each.what.split(": ")[0].split(" ")[-1] for each in compare(capture, again)}
        assert differing <= {"guest_uuid", "data"}


def test_keep_text_keeps_the_text_of_a_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guest.jsonl"
    record = FrameRecord(0, Direction.TO_HOST, Request.of(99, b"Anna's NAS at 10.0.0.7\0").frame)
    file.write_text("".join(format_capture(Capture(HEADER, (record,)))))
    for flags, left in ([], "x" * 22), (["--keep-text"], "Anna's NAS at 192.0.2.1"):
        app(["capture", "redact", str(file), *flags], result_action="return_value")
        assert f'"text": "{left}"' in capsys.readouterr().out
