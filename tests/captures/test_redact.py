from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.captures.make_golden import FOLDER, response
from tests.captures.replaying import replay
from tests.captures.test_format import HEADER
from tests.captures.test_golden import FILES, forgetful, load, text
from vchannel import (
    HEADER_FIELDS,
    Connection,
    CpuInfo,
    Frame,
    GuestCommand,
    HostCommand,
    Request,
    Role,
    SkipReason,
    decode_text,
    encode_json,
    encode_text,
    refusal,
)
from vhostcomm.capture.format import Capture, Direction, FrameRecord, SkippedRecord, format_capture
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact

SERIAL, HOST_SERIAL = "17A0PDN654321", "1234567890123"
UUID = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"
UUID_BYTES = bytes.fromhex(UUID.replace("-", ""))
SECRETS = [SERIAL, HOST_SERIAL, UUID, "02:11:32:2b:0f:e6", "02-11-32-2B-0F-E6", "10.11.12.13", "fd00::beef", "2B0FE6"]


def pair(command: HostCommand, answer: bytes) -> list[FrameRecord]:
    asked = Request.of(command, guest_uuid=UUID_BYTES).frame
    return [FrameRecord(0, Direction.TO_HOST, asked), FrameRecord(0, Direction.TO_GUEST, response(asked, answer))]


INFORMATION = {
    "serial": SERIAL.lower(),
    "ip": "10.11.12.13",
    "ip6": ["fd00::beef", "fe80::11:32ff:fe2b:fe6"],
    "mac": "02-11-32-2B-0F-E6",
    "uuid": UUID,
    "version": "7.2.1-69057",
    "when": 1650802981032,
    "http_port": 5000,
}

CAPTURE = Capture(
    HEADER,
    (
        *pair(HostCommand.GUEST_SERIAL, encode_text(SERIAL)),
        *pair(HostCommand.HOST_SERIAL, encode_text(HOST_SERIAL)),
        *pair(HostCommand.GUEST_UUID, encode_text(UUID.lower())),
        *pair(HostCommand.HOST_MAC, encode_text("02:11:32:2b:0f:e6")),
        *pair(HostCommand.GUEST_CPU, CpuInfo().to_data()),
        FrameRecord(
            1,
            Direction.TO_HOST,
            response(Request.of(GuestCommand.GET_INFORMATION).frame, encode_json(INFORMATION)),
        ),
        FrameRecord(2, Direction.TO_HOST, Request.of(99, b"\xff" + SERIAL.encode()).frame),
        SkippedRecord(3, Direction.TO_HOST, UUID_BYTES + SERIAL.encode() + bytes(4), SkipReason.SILENCE),
    ),
)


@pytest.mark.parametrize("keep_text", [False, True])
def test_no_secret_is_left(keep_text: bool) -> None:
    redacted = redact(CAPTURE, keep_text=keep_text)
    written = text(redacted).lower()
    for secret in SECRETS:
        assert secret.lower() not in written, secret
        assert secret.encode().hex() not in written, secret
    assert UUID_BYTES.hex() not in written.replace("-", "")
    assert redacted.header.redacted
    assert [record.time for record in redacted.records] == [record.time for record in CAPTURE.records]


def test_the_same_secret_gets_the_same_placeholder() -> None:
    frames = [record.frame for record in redact(CAPTURE, keep_text=True).records if isinstance(record, FrameRecord)]
    serial, uuid_text, mac = (decode_text(frames[place].data) for place in (1, 5, 7))
    document = json.loads(decode_text(frames[10].data))
    assert document["serial"] == serial
    assert document["uuid"] == uuid_text
    assert document["mac"] == mac.replace(":", "-")
    assert frames[0].guest_uuid.hex() == uuid_text.replace("-", "")
    assert len(serial) == len(SERIAL)
    assert serial != decode_text(frames[3].data)


def test_other_values_of_a_capture_stay() -> None:
    frames = [record.frame for record in redact(CAPTURE, keep_text=True).records if isinstance(record, FrameRecord)]
    assert frames[9].data == CpuInfo().to_data()
    document = json.loads(decode_text(frames[10].data))
    assert (document["version"], document["when"], document["http_port"]) == ("7.2.1-69057", 1650802981032, 5000)


def test_redacted_captures_are_captures() -> None:
    lines = list(format_capture(redact(CAPTURE)))
    assert list(format_capture(read_capture(lines))) == lines


@pytest.mark.parametrize("keep_text", [False, True])
def test_redacting_twice_changes_nothing(keep_text: bool) -> None:
    once = redact(CAPTURE, keep_text=keep_text)
    assert text(redact(once, keep_text=keep_text)) == text(once)


def values(capture: Capture, *names: str) -> list[list[object]]:
    frames = [record.frame for record in capture.records if isinstance(record, FrameRecord)]
    return [[getattr(frame, name) for name in names] for frame in frames]


@pytest.mark.parametrize("name", ["every-command", "graceful-stop"])
def test_placeholders_are_no_secrets(name: str) -> None:
    """In a capture of the defaults, only the UUIDs derived from the zeros and the request ids change."""
    capture = load(FOLDER / f"{name}.jsonl")
    redacted = redact(capture)
    header = [field for field in HEADER_FIELDS if field != "request_id"]
    assert values(redacted, *header, "padding") == values(capture, *header, "padding")
    changed = {
        (decode_text(before), decode_text(after))
        for [before], [after] in zip(values(capture, "data"), values(redacted, "data"), strict=True)
        if before != after and isinstance(before, bytes) and isinstance(after, bytes)
    }
    assert changed == ({
        ("d990d22a-e971-ef5f-a7b3-e6374e496b34", "00000000-0000-4000-8000-000000000001"),
        ("8b532c79-f207-3510-5067-79268f097d46", "00000000-0000-4000-8000-000000000002"),
    } if name == "every-command" else set())  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_redacted_golden_captures_are_played_again_exactly(path: Path) -> None:
    capture = load(path)
    redacted = forgetful(redact(capture))
    assert tuple(replay(redacted, Connection(Role.HOST))) == redacted.records
    kinds = [getattr(record, "refused", "").split(" is ")[0] for record in capture.records]
    assert [getattr(record, "refused", "").split(" is ")[0] for record in redacted.records] == kinds


# -- parts of a frame


def one(frame: Frame, direction: Direction = Direction.TO_HOST, refused: str = "") -> FrameRecord:
    (record,) = redact(Capture(HEADER, (FrameRecord(0, direction, frame, refused),))).records
    assert isinstance(record, FrameRecord)
    return record


def test_the_first_line_is_redacted() -> None:
    header = attrs.evolve(HEADER, producer=f"tool on 10.0.0.7 for {SERIAL}", provenance=f"from {SERIAL} at fe80::1.")
    redacted = redact(Capture(header, ())).header
    assert redacted.producer == "tool on 192.0.2.1 for REDACTED00001"
    assert redacted.provenance == "from REDACTED00001 at 2001:db8::1."


@pytest.mark.parametrize("data", [b"\xff" + SERIAL.encode(), b"\x01\x02\x031\n", b"\x1b[31m17A0\0", b"a\0b\0"])
def test_data_that_is_not_text_is_masked(data: bytes) -> None:
    masked = one(Request.of(99, data).frame).frame.data
    assert masked == bytes(ord("x") if byte else 0 for byte in data)


def test_padding_and_skipped_bytes_are_masked() -> None:
    frame = attrs.evolve(Request.of(5).frame, padding=b"\x01\0\x1f" + SERIAL.encode())
    assert one(frame).frame.padding == b"x\0x" + b"x" * len(SERIAL)
    skipped = SkippedRecord(0, Direction.TO_HOST, b"\x01\x1f\0 7\n", SkipReason.SILENCE)
    assert redact(Capture(HEADER, (skipped,))).records == (attrs.evolve(skipped, raw=b"xx\0xxx"),)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"request_length": 0x37413731}, "request_length is 2021161080: a length is 0..4032"),
        ({"needs_response": 2}, "needs_response is 120: a flag is 0 or 1"),
        ({"is_response": 1}, "is_response is 1: exactly one of is_request (1) and is_response is 1"),
        ({"sub_command": 0x1234, "request_length": 4000}, "sub_command is 30840: only 1..255"),
        ({"reserved": -2}, "reserved is 2021161080: only 0"),
    ],
)
def test_a_refused_frame_is_masked_with_its_reason(changes: dict[str, Any], why: str) -> None:
    frame = attrs.evolve(
        Request.of(0x41304137, request_id=0x4E44503041373153, guest_uuid=b"17A0PDN654321\0\0\0").frame,
        guest_id=0x36, padding=SERIAL.encode(), **changes,
    )  # fmt: skip
    refused = refusal(frame.encode()[:64], convincing=True)
    record = one(Frame.decode(frame.encode()), refused=str(refused))
    assert record.refused.startswith(why)
    assert not re.search(rb"[^\0\x01x]", record.raw)
    assert redact(redact(Capture(HEADER, (record,)))) == redact(Capture(HEADER, (record,)))


def test_a_reason_that_the_header_does_not_bear_out_is_left_out() -> None:
    assert one(Request.of(5).frame, refused=f"serial is {SERIAL}").refused == "for a reason that isn't shown"


def test_frame_that_the_capture_should_call_refused_is_masked() -> None:
    record = one(attrs.evolve(Request.of(5).frame, is_response=1, padding=SERIAL.encode()))
    assert record.frame.padding == b"x" * len(SERIAL)
    assert record.refused.startswith("is_response is 1")


def test_ids_become_small_numbers() -> None:
    secret = int.from_bytes(b"17A0PDN6", "little")
    asked = Request.of(5, request_id=secret, guest_id=secret)
    usual = Request.of(5, request_id=2)
    records = (
        *(FrameRecord(0, Direction.TO_HOST, frame) for frame in (asked.frame, usual.frame)),
        *(FrameRecord(0, Direction.TO_GUEST, each.reply(b"0\0").frame) for each in (usual, asked)),
        *(FrameRecord(0, Direction.TO_HOST, Request.of(5, request_id=1, guest_id=id_).frame) for id_ in (0, 3_000_000)),
    )
    redacted = redact(Capture(HEADER, records))
    assert values(redacted, "request_id", "guest_id") == [
        [3, 1], [2, 10_000_000], [2, 10_000_000], [3, 1], [1, 0], [1, 3_000_000],
    ]  # fmt: skip
    assert redact(redacted) == redacted


def test_small_ids_and_placeholders_in_use_are_given_to_no_other() -> None:
    """They are reserved even if they appear later in the capture than the replaced values."""
    taken = bytes.fromhex("00000000000040008000000000000001")
    asked = [
        Request.of(5, request_id=1 << 20, guest_id=1 << 20, guest_uuid=UUID_BYTES),
        Request.of(5, request_id=1, guest_id=1, guest_uuid=taken),
    ]
    redacted = redact(Capture(HEADER, tuple(FrameRecord(0, Direction.TO_HOST, each.frame) for each in asked)))
    assert values(redacted, "request_id", "guest_id", "guest_uuid") == [
        [2, 2, taken[:-1] + b"\2"], [1, 1, taken],
    ]  # fmt: skip


def test_secrets_and_placeholders_in_the_first_line_are_learned() -> None:
    header = attrs.evolve(HEADER, producer="tool on 10.0.0.9", provenance="serial number 654321 at 192.0.2.1")
    assert redact(Capture(header, ())).header.producer == "tool on 192.0.2.2"
    record = FrameRecord(0, Direction.TO_HOST, Request.of(99, b"of 654321\0").frame)
    assert values(redact(Capture(header, (record,)), keep_text=True), "data") == [[b"of REDACTED1\0"]]


def test_odd_header_fields_are_masked() -> None:
    frame = attrs.evolve(Request.of(0x41304137).frame, sub_command=0x31323334, reserved=7)
    record = one(frame)
    assert values(Capture(HEADER, (record,)), "command", "sub_command", "reserved") == [[0x78787878, 0x78787878, 0x78]]
    known = attrs.evolve(Request.of(-1).frame, sub_command=0)
    assert values(Capture(HEADER, (one(known),)), "command", "sub_command", "reserved") == [[-1, 0, 0]]


@pytest.mark.parametrize("command", [command for command in GuestCommand if command.dangerous])
def test_data_of_a_dangerous_command_is_blanked(command: GuestCommand) -> None:
    asked = Request.of(command, b"login\0")
    frame = one(asked.frame, Direction.TO_GUEST).frame
    assert (frame.data, frame.request_length) == (b"REDACTED\0", 9)
    frame = one(asked.reply(b"hunter2\0").frame, Direction.TO_HOST).frame
    assert (frame.data, frame.response_length) == (b"REDACTED\0", 9)
    assert one(asked.reply().frame, Direction.TO_HOST).frame.data == b""
    assert one(attrs.evolve(asked.reply(b"pw").frame, padding=b"x" * 4030)).frame.data == b"xx"
    # In a guest's request, the same number is another command.
    assert one(asked.frame, Direction.TO_HOST).frame.data == b"xxxxx\0"


def redacted_data(direction: Direction, command: int, answer: bytes) -> list[object]:
    records = [
        FrameRecord(0, Direction.TO_HOST, Request.of(99, b"up 654321 s or 1234567 s\0").frame),
        FrameRecord(0, direction, response(Request.of(command).frame, answer)),
    ]
    return [data for [data] in values(redact(Capture(HEADER, tuple(records)), keep_text=True), "data")]


def test_only_the_hosts_answers_are_serial_numbers() -> None:
    """A guest's answer to command 5 is its uptime."""
    assert redacted_data(Direction.TO_GUEST, 5, b"654321\0") == [b"up REDACTED1 s or 1234567 s\0", b"REDACTED1\0"]
    assert redacted_data(Direction.TO_GUEST, 13, b"1234567\0") == [b"up 654321 s or REDACTED1 s\0", b"REDACTED1\0"]
    assert redacted_data(Direction.TO_HOST, 5, b"654321\0") == [b"up 654321 s or 1234567 s\0", b"654321\0"]
    asked = Request.of(GuestCommand.GET_UPTIME, b"654321\0").frame
    assert one(asked, Direction.TO_GUEST).frame == attrs.evolve(asked, request_id=1)
    assert redacted_data(Direction.TO_GUEST, 5, b"AB1\0")[1] == b"REDACTED1\0"
    assert redacted_data(Direction.TO_GUEST, 5, b" unknown ")[1] == b" REDACTED1 "
    assert redacted_data(Direction.TO_GUEST, 5, b'{"a":["AB1",7,true]}')[1] == b'{"a":["REDACTED1","REDACTED2",true]}'


@pytest.mark.parametrize("padding", [b"", b"p" * 30])
def test_data_too_long_with_placeholders_is_masked(padding: bytes) -> None:
    data = (b'["10.0.0.7",' + b"1.1.1.1 " * 501)[: 4031 - len(padding)] + b"\0"
    frame = Request.of(99, data).frame
    record = FrameRecord(0, Direction.TO_HOST, attrs.evolve(frame, padding=padding))
    capture = redact(Capture(HEADER, (record,)), keep_text=True)
    assert values(capture, "data", "padding") == [[b"x" * (len(data) - 1) + b"\0", b"x" * len(padding)]]
    assert read_capture(format_capture(capture)) == capture
