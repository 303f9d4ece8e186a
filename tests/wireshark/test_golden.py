"""Every golden capture is unchanged after `capture export`, tshark and the dissector."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.captures.test_golden import FILES, load
from tests.serving import run_vhostcomm
from tests.wireshark.looking import Packet, experts, look
from vchannel import HEADER_FIELDS, Frame, GuestCommand, HostCommand, SkipReason, decode_text
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord, command_name, format_record
from vhostcomm.capture.show import transcript

pytestmark = pytest.mark.needs("tshark")


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, list[Packet]]:
    path = tmp_path_factory.mktemp("wireshark") / f"{request.param.stem}.pcapng"
    ended = run_vhostcomm("capture", "export", request.param, "-o", path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    return load(request.param), look(path)


def record_of(packet: Packet, start: float) -> Record:
    """Return a record made of only the dissector's fields."""
    time = float(packet["frame.time_epoch"][0]) - start
    (way,) = packet["vchannel.direction"]
    if "vchannel.skipped" in packet:
        (why,) = packet["vchannel.why_skipped"]
        return SkippedRecord(time, Direction(way), octets(packet, "skipped"), SkipReason(why))
    numbers = [name for name in HEADER_FIELDS if name != "guest_uuid"]
    header: dict[str, Any] = {name: int(packet[f"vchannel.{name}"][0], 0) for name in numbers}
    header["guest_uuid"] = uuid.UUID(packet["vchannel.guest_uuid"][0]).bytes
    frame = Frame(**header, data=octets(packet, "data"), padding=octets(packet, "padding"))
    (refused,) = packet.get("vchannel.refused", [""])
    assumed = tuple(packet["vchannel.assumed"][0].split(", ")) if "vchannel.assumed" in packet else ()
    return FrameRecord(time, Direction(way), frame, refused, assumed)


def octets(packet: Packet, name: str) -> bytes:
    return bytes.fromhex(packet.get(f"vchannel.{name}", [""])[0].replace(":", ""))


@pytest.mark.slow
def test_every_field_of_every_record(seen: tuple[Capture, list[Packet]]) -> None:
    capture, packets = seen
    again = [record_of(packet, capture.header.when.timestamp()) for packet in packets]
    assert list(map(format_record, again)) == list(map(format_record, capture.records))


def test_wireshark_agrees_with_capture_show(seen: tuple[Capture, list[Packet]]) -> None:
    capture, packets = seen
    again = tuple(record_of(packet, capture.header.when.timestamp()) for packet in packets)
    lines = list(transcript(capture))
    assert list(transcript(Capture(capture.header, again))) == lines
    for packet, record, line in zip(packets, capture.records, lines[3:], strict=True):
        (info,) = packet["_ws.col.Info"]
        (source,) = packet["_ws.col.Source"]
        assert source == line.split()[1]
        if isinstance(record, FrameRecord):
            verb, number, name = info.split()[:3]
            assert f" {verb} {number} {name} " in line
            assert ("[refused]" in info) == ("REFUSED" in line)
        else:
            assert line.endswith(info)


def test_names_of_both_namespaces(seen: tuple[Capture, list[Packet]]) -> None:
    capture, packets = seen
    named = 0
    for packet, record in zip(packets, capture.records, strict=True):
        if isinstance(record, FrameRecord):
            by_guest = (record.direction is Direction.TO_HOST) == (record.frame.is_request == 1)
            ours, other = ("host_command", "guest_command") if by_guest else ("guest_command", "host_command")
            assert packet[f"vchannel.{ours}"] == [str(record.frame.command)]
            assert f"vchannel.{other}" not in packet
            name = command_name(record)
            assert ("command" in experts(packet)) == (not name)
            assert (name or "(unknown)") in packet["_ws.col.Info"][0]
            named += bool(name)
    assert named


@pytest.mark.slow
def test_text_and_json(seen: tuple[Capture, list[Packet]]) -> None:
    capture, packets = seen
    for packet, record in zip(packets, capture.records, strict=True):
        if isinstance(record, SkippedRecord) or not record.frame.data:
            assert "vchannel.text" not in packet
            continue
        text = decode_text(record.frame.data)
        if text.isascii() and not record.frame.data.startswith(b"\xff"):
            assert packet["vchannel.text"] == [text]
        assert ("json.key" in packet) == (text.startswith("{") and len(text) > 1)


def test_requests_and_responses_with_the_time_between(seen: tuple[Capture, list[Packet]]) -> None:
    capture, packets = seen
    waiting: dict[tuple[int, int, bool], tuple[int, FrameRecord]] = {}
    linked = 0
    for number, (packet, record) in enumerate(zip(packets, capture.records, strict=True), 1):
        if isinstance(record, SkippedRecord) or record.refused:
            assert not {"vchannel.response_in", "vchannel.response_to"} & packet.keys()
            continue
        frame = record.frame
        asked_by_guest = (record.direction is Direction.TO_HOST) == (frame.is_request == 1)
        key = (frame.request_id, frame.command, asked_by_guest)
        if frame.is_request:
            if frame.needs_response:
                waiting[key] = number, record
            assert "vchannel.response_to" not in packet
        elif found := waiting.pop(key, None):
            asked_in, asked = found
            assert packet["vchannel.response_to"] == [str(asked_in)]
            assert packets[asked_in - 1]["vchannel.response_in"] == [str(number)]
            for each in packet, packets[asked_in - 1]:
                assert float(each["vchannel.time"][0]) == pytest.approx(record.time - asked.time, abs=1e-9)
            linked += 1
        else:
            assert "unsolicited" in experts(packet)
    assert linked
    for number, _ in waiting.values():
        assert "unanswered" in experts(packets[number - 1])


def test_refused_frames_show_the_reason(seen: tuple[Capture, list[Packet]]) -> None:
    """The dissector also checks a header by the codec's rules."""
    capture, packets = seen
    for packet, record in zip(packets, capture.records, strict=True):
        hard = experts(packet) & {"flag", "both", "length"}
        if isinstance(record, FrameRecord) and record.refused:
            assert "refused" in experts(packet)
            assert hard
        else:
            assert not hard


def test_dissector_has_the_codecs_commands() -> None:
    """The dissector's tables have exactly the codec's commands."""
    source = (Path(__file__).parents[2] / "protocol/wireshark/vchannel.lua").read_text()
    for table, commands in ("HOST_COMMANDS", HostCommand), ("GUEST_COMMANDS", GuestCommand):
        body = source.split(f"local {table} = {{\n")[1].split("\n}\n")[0]
        assert body.splitlines() == [
            f'    [{each.value}] = {{ "{each.name}", "{each.asks.value}", "{each.answers.value}" }},'
            for each in commands
        ]
