"""The dissector's notes on invalid and odd frames."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from tests.wireshark.looking import experts, exported, frames, look, made, tshark
from tests.wireshark.packets import upper_pdus
from vchannel import Frame, HostCommand, Request, encode_text
from vhostcomm.capture.format import Direction

pytestmark = pytest.mark.needs("tshark")

GOOD = Request.of(HostCommand.GUEST_SERIAL, request_id=1, needs_response=False).frame
TIMESTAMP = Request.of(HostCommand.GUEST_TIMESTAMP, encode_text("1648798789"), request_id=1, needs_response=False).frame
ANSWER = Frame(is_response=1, command=HostCommand.HOST_VERSION.value)

BAD: list[tuple[dict[str, Any], Frame, set[str]]] = [
    ({}, GOOD, set()),
    ({}, TIMESTAMP, set()),
    ({"needs_response": 2}, GOOD, {"flag"}),
    ({"is_request": -1}, GOOD, {"flag"}),
    ({"is_request": 0}, GOOD, {"both"}),
    ({"is_response": 1}, GOOD, {"both"}),
    ({"request_length": -1}, GOOD, {"length"}),
    ({"request_length": 4033}, GOOD, {"length"}),
    ({"request_length": -(1 << 31)}, GOOD, {"length"}),
    ({"response_length": (1 << 31) - 1}, GOOD, {"length"}),
    ({"request_length": 4032, "data": bytes(4032)}, GOOD, set()),
    ({"response_length": 4032}, GOOD, {"other_length"}),
    ({"sub_command": 0}, GOOD, {"sub_command"}),
    ({"sub_command": 255}, GOOD, set()),
    ({"sub_command": 256}, GOOD, {"sub_command"}),
    ({"reserved": -1}, GOOD, {"reserved"}),
    ({"command": 6}, GOOD, {"command"}),
    ({"command": -5}, GOOD, {"command"}),
    ({"padding": b"\0\0x"}, GOOD, {"padding"}),
    ({"data": b"1648798789", "request_length": 10}, TIMESTAMP, {"nul"}),
    ({"data": b"now\0", "request_length": 4}, TIMESTAMP, {"integer"}),
    ({"data": b'{"a":\0', "response_length": 6}, ANSWER, {"unsolicited"}),
    ({"data": b"[" * 4031 + b"\0", "response_length": 4032}, ANSWER, {"unsolicited"}),
    ({"data": b"\xff\xfe\x80\0", "response_length": 4}, ANSWER, {"unsolicited"}),
    ({"data": b"\0", "response_length": 1}, ANSWER, {"unsolicited"}),
    ({"request_id": (1 << 64) - 1, "guest_id": 1 << 63}, GOOD, set()),
]  # fmt: skip


def test_invalid_frames_have_notes(tmp_path: Path) -> None:
    """All frames are in one file. Each bad frame has a note, and good frames between them have none."""
    rows = [(Direction.TO_HOST if frame is not ANSWER else Direction.TO_GUEST, frame, more) for more, frame, _ in BAD]
    capture = made(*frames(*((way, evolve(frame, **more)) for way, frame, more in rows)))
    packets = look(exported(tmp_path / "bad.pcapng", capture))
    assert [experts(packet) for packet in packets] == [expected for *_, expected in BAD]
    last = packets[-1]
    assert (last["vchannel.request_id"], last["vchannel.guest_id"]) == (["0xffffffffffffffff"], [str(1 << 63)])


def test_messages_name_field_and_value(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"request_length": 4033}, {"needs_response": 2}, {"is_response": 1}]
    capture = made(*frames(*((Direction.TO_HOST, evolve(GOOD, **each)) for each in bad)))
    shown = tshark(tmp_path, "-r", exported(tmp_path / "a.pcapng", capture), "-V")
    for message in (
        "request_length is 4033: a length is 0..4032",
        "needs_response is 2: a flag is 0 or 1",
        "Exactly one of is_request and is_response is 1: both are 1",
    ):
        assert f"]: {message}" in shown or f"{message}]" in shown


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 63, 64, 4095, 4097, 9000])
def test_frame_of_another_size_has_a_note(tmp_path: Path, size: int) -> None:
    """Only another program writes such packets."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(upper_pdus(b"vchannel_record", [bytes(4) + (GOOD.encode() * 3)[:size]]))
    (packet,) = look(path)
    assert experts(packet) == ({"cut"} if size else set())


def test_frame_without_a_direction_has_a_note(tmp_path: Path) -> None:
    """The file is of another program and has no flags for the packets."""
    capture = exported(tmp_path / "a.pcapng", made(*frames((Direction.TO_HOST, GOOD))))
    subprocess.run(["editcap", "-F", "nsecpcap", capture, tmp_path / "a.pcap"], check=True)
    (packet,) = look(tmp_path / "a.pcap")
    assert experts(packet) == {"direction"}
    assert packet["vchannel.command"] == ["5"]
    assert not {"vchannel.host_command", "vchannel.guest_command"} & packet.keys()
