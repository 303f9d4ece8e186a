"""Make the reconstructed captures in ``captures/`` from known facts: ``python -m tests.captures.make_golden``.

A test compares the files with the result. Damaged bytes have the time of the read in which a host finds the damage:
the read of the next frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from vchannel import (
    NEVER,
    CpuInfo,
    Frame,
    GuestCommand,
    HostCommand,
    HostVersion,
    NetworkResult,
    SkipReason,
    VmmVersion,
    encode_integer,
    encode_json,
    encode_text,
)
from vhostcomm.capture.format import (
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    Record,
    SkippedRecord,
    format_capture,
)

FOLDER: Final = Path(__file__).parents[2] / "captures"
PRODUCER: Final = "tests/captures/make_golden.py"
WHEN: Final = datetime(2026, 11, 23, tzinfo=UTC)

TO_HOST, TO_GUEST = Direction.TO_HOST, Direction.TO_GUEST

UNSEEN_ASKED: Final = ("request_id", "guest_uuid", "needs_response", "request_length", "sub_command", "reserved")
UNSEEN_ANSWERED: Final = tuple(field.replace("request_length", "response_length") for field in UNSEEN_ASKED)
UNSEEN_OF_HOST: Final = ("request_id", "guest_uuid")
"""Assumed fields of the host's questions. Deployed tools show the other fields, and differ in the UUID."""
UNSEEN_OF_GUEST: Final = (*UNSEEN_ANSWERED, "guest_id", "data")
"""Assumed fields of the guest's answers: all. Only the existence of an answer and two paths in its data are known."""

ANSWERS: Final[dict[HostCommand, bytes]] = {
    HostCommand.HOST_VERSION: HostVersion().to_data(),
    HostCommand.GUEST_SERIAL: encode_text("0000000000000"),
    HostCommand.GUEST_CPU: CpuInfo().to_data(),
    HostCommand.VMM_VERSION: VmmVersion().to_data(),
    HostCommand.HOST_VERSION_SECOND: b"",
    HostCommand.NETWORK_RESULT: NetworkResult().to_data(),
    HostCommand.GUEST_UUID: encode_text("d990d22a-e971-ef5f-a7b3-e6374e496b34"),
    HostCommand.CLUSTER_UUID: encode_text("8b532c79-f207-3510-5067-79268f097d46"),
    HostCommand.HOST_SERIAL: encode_text("0000000000000"),
    HostCommand.HOST_MAC: encode_text("00:00:00:00:00:00"),
    HostCommand.HOST_MODEL: encode_text("Virtualhost"),
    HostCommand.UPDATE_DEADLINE: encode_integer(NEVER),
}


def request(request_id: int, command: int, data: bytes = b"", *, needs_response: int = 1, **fields: Any) -> Frame:
    length = fields.pop("request_length", len(data))
    return attrs.evolve(
        Frame(request_id, is_request=1, needs_response=needs_response, request_length=length, command=command),
        data=data,
        **fields,
    )


def response(asked: Frame, data: bytes = b"") -> Frame:
    return Frame(
        asked.request_id, asked.guest_uuid, asked.guest_id, 0, 1, 0, 0, len(data), asked.command, asked.sub_command,
        asked.reserved, data,
    )  # fmt: skip


def asks(time: float, asked: Frame, answer: bytes | None) -> Iterator[Record]:
    """Return a guest's request, and the host's response a millisecond later."""
    yield FrameRecord(time, TO_HOST, asked)
    if answer is not None:
        yield FrameRecord(time + 0.001, TO_GUEST, response(asked, answer))


def public_boot() -> Capture:
    """Return the only public boot trace, which shows times, commands, guest ids and texts."""
    serial = encode_text("0000000000000")
    records: list[Record] = [
        *asks(
            439,
            request(0x20220001, HostCommand.GUEST_TIMESTAMP, encode_text("1648798789"), needs_response=0, guest_id=0),
            None,
        ),
        *asks(490, request(0x20220002, HostCommand.GUEST_SERIAL), serial),
        *asks(490, request(0x20220003, HostCommand.GUEST_UUID), encode_text("ba13a19a-c0c1-4fef-9346-915ed3b98341")),
        *asks(
            490,
            request(0x20220004, HostCommand.CLUSTER_UUID, guest_id=3_000_000),
            encode_text("3bdea92b-68f4-4fe9-aa4b-d645c3c63864"),
        ),
        *asks(490, request(0x20220005, HostCommand.GUEST_SERIAL), serial),
    ]
    return Capture(
        CaptureHeader(
            datetime(2022, 4, 25, 1, 29, 2, tzinfo=UTC),
            PRODUCER,
            Origin.RECONSTRUCTED,
            "The boot of a genuine guest (DSM 7.0.x) printed in the public notes of 2022-04-25: times to the second, "
            "commands, guest ids and texts as printed there; the day and the zone of its times, and the fields "
            "named in 'assumed', were not seen. QEMU connects at 0 s.",
        ),
        tuple(
            attrs.evolve(
                record,
                time=float(round(record.time)),
                assumed=UNSEEN_ASKED if record.direction is TO_HOST else UNSEEN_ANSWERED,
            )
            for record in records
            if isinstance(record, FrameRecord)
        ),
    )


def every_command() -> Capture:
    """Return each command that a guest can send, answered with the default identity."""
    records: list[Record] = []
    for place, command in enumerate(HostCommand):
        notification = {
            HostCommand.GUEST_INFO: b"",
            HostCommand.GUEST_POWER: b"",
            HostCommand.GUEST_TIMESTAMP: encode_text("1648798789"),
        }.get(command)
        guest_id = {HostCommand.GUEST_TIMESTAMP: 0, HostCommand.CLUSTER_UUID: 3_000_000}.get(command, 10_000_000)
        asked = request(
            0xE0000000 + place,
            command,
            notification or b"",
            needs_response=int(notification is None),
            guest_id=guest_id,
        )
        records += asks(place / 10, asked, ANSWERS.get(command))
    records += asks(len(HostCommand) / 10, request(0xE00000FF, 200), b"")
    return Capture(
        CaptureHeader(
            WHEN,
            PRODUCER,
            Origin.RECONSTRUCTED,
            "Every guest-to-host command of protocol/README.md once, and an unknown one, with the answers of the "
            "default identity; notifications don't ask for an answer. No genuine guest asks in this order.",
        ),
        tuple(records),
    )


def graceful_stop() -> Capture:
    """Return a session in which a host asks for the guest's address and shuts the guest down."""
    information = {
        "data": {
            "dsm_setting": {"data": {"http_port": 5000}},
            "ip": {"data": [{"name": "eth0", "ip": "192.0.2.15"}, {"name": "eth1"}]},
        }
    }
    serial = request(0x50000001, HostCommand.GUEST_SERIAL)
    question = request(0x50000002, GuestCommand.GET_INFORMATION)
    off = request(0x50000003, GuestCommand.POWEROFF)
    data = encode_json(information)
    return Capture(
        CaptureHeader(
            WHEN,
            PRODUCER,
            Origin.RECONSTRUCTED,
            "A guest that is ready (it has asked for its serial) is asked for its information and then to power off, "
            "as deployed tools do. Nobody printed such frames: what the tools' own questions don't show is assumed, "
            "and named in 'assumed'. Of the information only the paths of ip and http_port are evidenced. Times and "
            "the order are made up, too: that the guest answers the power-off, and at once.",
        ),
        (
            FrameRecord(0.0, TO_HOST, serial, assumed=UNSEEN_ASKED),
            FrameRecord(0.001, TO_GUEST, response(serial, ANSWERS[HostCommand.GUEST_SERIAL]), assumed=UNSEEN_ANSWERED),
            FrameRecord(1.0, TO_GUEST, question, assumed=UNSEEN_OF_HOST),
            FrameRecord(1.02, TO_HOST, response(question, data), assumed=UNSEEN_OF_GUEST),
            FrameRecord(5.0, TO_GUEST, off, assumed=UNSEEN_OF_HOST),
            FrameRecord(5.01, TO_HOST, response(off), assumed=UNSEEN_OF_GUEST),
        ),
    )


def damage() -> Capture:
    """Return a stream with the damage that a real channel or a hostile guest can cause."""
    ids = iter(range(0xD0000001, 0xD0000100))
    serial = ANSWERS[HostCommand.GUEST_SERIAL]

    def good() -> Frame:
        return request(next(ids), HostCommand.GUEST_SERIAL)

    def refused(time: float, frame: Frame, why: str) -> FrameRecord:
        return FrameRecord(time, TO_HOST, frame, refused=why)

    length = "a length is 0..4032"
    both = "exactly one of is_request ({0}) and is_response is 1"
    cut = good().encode()[:2048]
    fresh = good().encode()
    swallowed = Frame.decode(cut + fresh[:2048])
    records: list[Record] = [
        # The channel is opened in the middle of a frame.
        SkippedRecord(0.0, TO_HOST, fresh[2048:], SkipReason.OUT_OF_STEP),
        *asks(0.0, good(), serial),
        # Half a frame, silence, then a whole frame: the host drops the half.
        SkippedRecord(2.0, TO_HOST, cut, SkipReason.SILENCE),
        *asks(2.5, good(), serial),
        # Half a frame, and a whole one without a pause: the first frame's padding takes the second one's header.
        *asks(3.0, swallowed, serial),
        SkippedRecord(3.1, TO_HOST, fresh[2048:], SkipReason.OUT_OF_STEP),
        *asks(3.1, good(), serial),
        # Junk before a frame.
        SkippedRecord(4.0, TO_HOST, b"login: \r\n" * 11 + b"!", SkipReason.OUT_OF_STEP),
        *asks(4.0, good(), serial),
        # Refused headers, each before a good frame.
        refused(5.0, request(next(ids), 5, request_length=-1), f"request_length is -1: {length}"),
        *asks(5.1, good(), serial),
        refused(5.2, request(next(ids), 5, request_length=4033), f"request_length is 4033: {length}"),
        *asks(5.3, good(), serial),
        refused(5.4, request(next(ids), 5, response_length=1 << 20), f"response_length is 1048576: {length}"),
        *asks(5.5, good(), serial),
        refused(5.6, request(next(ids), 5, is_response=1), "is_response is 1: " + both.format(1)),
        *asks(5.7, good(), serial),
        refused(5.8, request(next(ids), 5, is_request=0), "is_response is 0: " + both.format(0)),
        *asks(5.9, good(), serial),
        refused(6.0, request(next(ids), 5, needs_response=2), "needs_response is 2: a flag is 0 or 1"),
        *asks(6.1, good(), serial),
        # Unknown commands get empty answers.
        *asks(7.0, request(next(ids), 0), b""),
        *asks(7.1, request(next(ids), 200, b"\xff\x00\x01"), b""),
        *asks(7.2, request(next(ids), -1), b""),
        # Invalid data.
        *asks(8.0, request(next(ids), HostCommand.GUEST_TIMESTAMP, b"\xffsoon\0", needs_response=0), None),
        *asks(8.1, request(next(ids), HostCommand.GUEST_TIMESTAMP, b"1648798789", needs_response=0), None),
        # A response without a request.
        FrameRecord(9.0, TO_HOST, response(request(next(ids), GuestCommand.GET_INFORMATION), b"{")),
        # A never observed sub-command right after a good frame: accepted, and repeated in the answer.
        *asks(9.1, request(next(ids), HostCommand.GUEST_SERIAL, sub_command=0), serial),
    ]
    return Capture(
        CaptureHeader(
            WHEN,
            PRODUCER,
            Origin.RECONSTRUCTED,
            "Damage of the kinds measured on a virtio-serial channel (half frames, starts in the middle) and of the "
            "kinds a hostile guest can make (junk, lengths and flags out of range, unknown commands, odd data), "
            "and how a host gets past it.",
        ),
        tuple(records),
    )


GOLDEN: Final[dict[str, Callable[[], Capture]]] = {
    "boot-2022-04-25.jsonl": public_boot,
    "every-command.jsonl": every_command,
    "graceful-stop.jsonl": graceful_stop,
    "damage.jsonl": damage,
}


def main() -> None:
    for name, make in GOLDEN.items():
        (FOLDER / name).write_text("".join(format_capture(make())))


if __name__ == "__main__":
    main()
