"""Pairs of requests and responses, and the notes on unpaired ones."""

from __future__ import annotations

from pathlib import Path
from subprocess import run

import pytest
from attrs import evolve

from tests.wireshark.looking import Packet, experts, exported, frames, look, made
from vchannel import Frame, GuestCommand, HostCommand, Request, SkipReason
from vhostcomm.capture.format import Direction, Record, SkippedRecord

pytestmark = pytest.mark.needs("tshark")

HOST, GUEST = Direction.TO_HOST, Direction.TO_GUEST


def asks(command: HostCommand | GuestCommand, request_id: int, *, needs: bool = True) -> Frame:
    return Request.of(command, request_id=request_id, needs_response=needs).frame


def answers(command: HostCommand | GuestCommand, request_id: int) -> Frame:
    return Frame(request_id=request_id, is_response=1, command=command.value)


def links(packets: list[Packet]) -> list[str]:
    """Return for each packet: >3 if its response is in packet 3, <1 if it answers packet 1, and its other notes."""
    notes = []
    for packet in packets:
        words = [f">{number}" for number in packet.get("vchannel.response_in", [])]
        words += [f"<{number}" for number in packet.get("vchannel.response_to", [])]
        words += [f"^{number}" for number in packet.get("vchannel.asked_before", [])]
        notes.append(" ".join(words + sorted(experts(packet) - {"refused", "skipped"})))
    return notes


SERIAL, UUID, OFF, INFORMATION = (
    HostCommand.GUEST_SERIAL, HostCommand.GUEST_UUID, GuestCommand.POWEROFF, GuestCommand.GET_INFORMATION,
)  # fmt: skip


@pytest.mark.parametrize(
    ("frames_and_links"),
    [
        pytest.param(
            [
                (HOST, asks(SERIAL, 1), ">4"),
                (HOST, asks(UUID, 2), ">3"),
                (GUEST, answers(UUID, 2), "<2"),
                (GUEST, answers(SERIAL, 1), "<1"),
            ],
            id="out of order",
        ),
        pytest.param(
            [
                (HOST, asks(SERIAL, 1), ">4"),
                (GUEST, asks(OFF, 1), ">3"),
                (HOST, answers(OFF, 1), "<2"),
                (GUEST, answers(SERIAL, 1), "<1"),
            ],
            id="one id in both directions",
        ),
        pytest.param(
            [
                (HOST, asks(SERIAL, 1), "unanswered"),
                (HOST, asks(SERIAL, 2), "^1 asked_again unanswered"),
                (HOST, asks(SERIAL, 3), ">4 ^2 asked_again"),
                (GUEST, answers(SERIAL, 3), "<3"),
            ],
            id="asked again",
        ),
        pytest.param(
            [
                (HOST, asks(SERIAL, 1), ">3"),
                (HOST, asks(SERIAL, 1), ">4 ^1 same_id"),
                (GUEST, answers(SERIAL, 1), "<1"),
                (GUEST, answers(SERIAL, 1), "<2"),
                (GUEST, answers(SERIAL, 1), "unsolicited"),
            ],
            id="the same request twice, answered three times",
        ),
        pytest.param(
            [
                (HOST, asks(SERIAL, 1, needs=False), ""),
                (GUEST, answers(SERIAL, 1), "unsolicited"),
                (GUEST, answers(UUID, 9), "unsolicited"),
            ],
            id="nobody asked for a response",
        ),
        pytest.param(
            [
                (GUEST, asks(INFORMATION, 1), ">3"),
                (GUEST, asks(OFF, 2), ">4"),
                (HOST, answers(INFORMATION, 77), "<1"),
                (HOST, answers(OFF, 78), "<2"),
            ],
            id="a guest that repeats no ids",
        ),
        pytest.param(
            [
                (GUEST, asks(INFORMATION, 1), ">2"),
                (HOST, answers(INFORMATION, 1), "<1"),
                (GUEST, asks(INFORMATION, 2), "unanswered"),
                (HOST, answers(INFORMATION, 77), "unsolicited"),
            ],
            id="a guest that repeats ids, and a wrong one",
        ),
        pytest.param(
            [(GUEST, asks(INFORMATION, 1), "unanswered"), (HOST, answers(OFF, 1), "unsolicited")],
            id="the id of one, the command of another",
        ),
    ],
)
def test_pairs(tmp_path: Path, frames_and_links: list[tuple[Direction, Frame, str]]) -> None:
    capture = made(*frames(*((way, frame) for way, frame, _ in frames_and_links)))
    assert links(look(exported(tmp_path / "a.pcapng", capture))) == [link for *_, link in frames_and_links]


def test_refused_request_has_no_response(tmp_path: Path) -> None:
    refused, *rest = frames((HOST, evolve(asks(SERIAL, 1), reserved=7)), (GUEST, answers(SERIAL, 1)))
    junk = SkippedRecord(3, HOST, bytes(4096), SkipReason.SILENCE)
    capture = made(evolve(refused, refused="because"), *rest, junk)
    packets = look(exported(tmp_path / "a.pcapng", capture))
    assert links(packets) == ["reserved", "unsolicited", ""]
    assert "vchannel.request_id" not in packets[2]  # 4096 bytes outside any frame are not dissected as a frame


def test_guests_in_one_file_are_kept_apart(tmp_path: Path) -> None:
    one = made(*frames((HOST, asks(SERIAL, 1)), (GUEST, answers(SERIAL, 1))))
    later: list[Record] = [evolve(record, time=record.time + 0.05) for record in one.records]
    files = [exported(tmp_path / f"{name}.pcapng", made(*rows)) for name, rows in (("a", one.records), ("b", later))]
    run(["mergecap", "-w", tmp_path / "both.pcapng", *files], check=True)
    packets = look(tmp_path / "both.pcapng")
    assert [packet["frame.interface_name"] for packet in packets] == [["a"], ["b"], ["a"], ["b"]]
    assert links(packets) == [">3", ">4", "<1", "<2"]


def test_in_one_pass_later_frames_are_unknown(tmp_path: Path) -> None:
    from tests.wireshark.looking import tshark

    path = exported(tmp_path / "a.pcapng", made(*frames((HOST, asks(SERIAL, 1)), (GUEST, answers(SERIAL, 1)))))
    fields = ["-e", "vchannel.response_in", "-e", "vchannel.response_to", "-e", "vchannel.expert.unanswered"]
    assert tshark(tmp_path, "-r", path, "-T", "fields", "-E", "separator=,", *fields) == ",,\n,1,\n"
