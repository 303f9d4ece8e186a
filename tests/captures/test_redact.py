from __future__ import annotations

import json

import pytest

from tests.captures.make_golden import FOLDER, response
from tests.captures.test_format import HEADER
from tests.captures.test_golden import load, text
from vchannel import (
    CpuInfo,
    GuestCommand,
    HostCommand,
    Request,
    SkipReason,
    decode_text,
    encode_json,
    encode_text,
)
from vhostcomm.capture import (
    Capture,
    Direction,
    FrameRecord,
    Redactor,
    SkippedRecord,
    format_capture,
    read_capture,
    redact,
)

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


def test_no_secret_is_left() -> None:
    redacted = redact(CAPTURE)
    written = text(redacted).lower()
    for secret in SECRETS:
        assert secret.lower() not in written, secret
        assert secret.encode().hex() not in written, secret
    assert UUID_BYTES.hex() not in written.replace("-", "")
    assert redacted.header.redacted
    assert [record.time for record in redacted.records] == [record.time for record in CAPTURE.records]


def test_the_same_secret_gets_the_same_placeholder() -> None:
    frames = [record.frame for record in redact(CAPTURE).records if isinstance(record, FrameRecord)]
    serial, uuid_text, mac = (decode_text(frames[place].data) for place in (1, 5, 7))
    told = json.loads(decode_text(frames[10].data))
    assert told["serial"] == serial
    assert told["uuid"] == uuid_text
    assert told["mac"] == mac.replace(":", "-")
    assert frames[0].guest_uuid.hex() == uuid_text.replace("-", "")
    assert len(serial) == len(SERIAL)
    assert serial != decode_text(frames[3].data)


def test_what_is_no_secret_stays() -> None:
    frames = [record.frame for record in redact(CAPTURE).records if isinstance(record, FrameRecord)]
    assert frames[9].data == CpuInfo().to_data()
    told = json.loads(decode_text(frames[10].data))
    assert (told["version"], told["when"], told["http_port"]) == ("7.2.1-69057", 1650802981032, 5000)


def test_redacted_captures_are_captures() -> None:
    lines = list(format_capture(redact(CAPTURE)))
    assert list(format_capture(read_capture(lines))) == lines


def test_redacting_twice_changes_nothing() -> None:
    once = redact(CAPTURE)
    assert text(redact(once)) == text(once)


@pytest.mark.parametrize("name", ["every-command", "graceful-stop"])
def test_placeholders_are_no_secrets(name: str) -> None:
    """Zeros stay zeros; so a capture of the defaults is only marked."""
    capture = load(FOLDER / f"{name}.jsonl")
    zeros = [
        record.frame.data
        for record in redact(capture).records
        if isinstance(record, FrameRecord) and record.frame.data.startswith((b"0000000000000", b"00:"))
    ]
    assert set(zeros) <= {b"0000000000000\0", b"00:00:00:00:00:00\0"}
    assert zeros


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("no secret at 12:34:56, v7.2.1", "no secret at 12:34:56, v7.2.1"),
        ("127.0.0.1 ::1 0.0.0.0", "127.0.0.1 ::1 0.0.0.0"),
        ("999.1.1.1", "999.1.1.1"),
        ("at 10.0.0.7:5000.", "at 192.0.2.1:5000."),
        ("[fe80::1]:80", "[2001:db8::1]:80"),
        ("aa:bb:cc:dd:ee:ff", "02:00:00:00:00:01"),
        ("ABCDEFGHIJKLM", "ABCDEFGHIJKLM"),
        ("ABC1EFGHIJKLM", "REDACTED00001"),
        ("::ffff:10.0.0.7", "2001:db8::1"),
    ],
)
def test_what_is_taken_for_a_secret(told: str, shown: str) -> None:
    assert Redactor().text(told) == shown


def test_many_addresses() -> None:
    redactor = Redactor()
    assert len({redactor.text(f"10.0.{high}.{low}") for high in range(4) for low in range(200)}) == 800
