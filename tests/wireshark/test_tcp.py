"""Frames in a TCP stream with any segments, with "Decode As"."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from attrs import evolve

from tests.captures.test_golden import FILES, load
from tests.serving import TIMEOUT, Serving, fake_guest, held_port, line_from, started, until
from tests.wireshark.looking import Packet, command, environment, experts, look, tshark
from tests.wireshark.packets import HOST_PORT, Segment, tcp
from vchannel import FRAME_SIZE, NEED_DATA, Connection, Frame, HostCommand, Request, Response, Role, UnsolicitedResponse
from vhostcomm.capture.format import Direction

pytestmark = pytest.mark.needs("tshark")

DECODE_AS = ["-d", f"tcp.port=={HOST_PORT},vchannel"]
ASKS = [Request.of(HostCommand.GUEST_SERIAL, request_id=number).frame.encode() for number in range(1, 9)]


def answer(number: int) -> bytes:
    return Frame(request_id=number, is_response=1, command=5, response_length=3, data=b"ab\0").encode()


def seen(path: Path, *segments: Segment, mss: int = 1448) -> list[Packet]:
    """Return the packets in which a frame or a skipped range ends."""
    path.write_bytes(tcp(segments, mss))
    return [packet for packet in look(path, *DECODE_AS) if "vchannel.channel" in packet]


def ids(packets: list[Packet]) -> list[int]:
    return [int(each, 16) for packet in packets for each in packet.get("vchannel.request_id", [])]


def test_frames_over_many_packets_and_many_in_one(tmp_path: Path) -> None:
    packets = seen(
        tmp_path / "a.pcapng",
        Segment(True, ASKS[0]),
        Segment(False, answer(1)),
        Segment(True, ASKS[1] + ASKS[2]),
        Segment(False, answer(3) + answer(2)),
    )
    assert ids(packets) == [1, 1, 2, 3, 3, 2]
    assert [packet["vchannel.direction"][0] for packet in packets[:2]] == ["guest>host", "host>guest"]
    assert packets[0]["vchannel.response_in"] == packets[1]["frame.number"]
    assert packets[1]["vchannel.response_to"] == packets[0]["frame.number"]
    assert packets[1]["vchannel.text"] == ["ab"]
    assert not experts(packets[0]) | experts(packets[1])


def test_many_frames_in_one_packet(tmp_path: Path) -> None:
    (packet,) = seen(tmp_path / "a.pcapng", Segment(True, b"".join(ASKS)), mss=1 << 15)
    assert ids([packet]) == list(range(1, 9))
    assert packet["_ws.col.Info"][0].count("asks 5 GUEST_SERIAL") == 8


@pytest.mark.parametrize("seed", range(3))
def test_any_cut_gives_the_same_frames(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    stream = b"".join(ASKS)
    cuts = sorted(random.sample(range(1, len(stream)), 12))
    parts = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    packets = seen(
        tmp_path / "a.pcapng", *(Segment(True, part) for part in parts), mss=random.choice([500, 1448, 9000])
    )
    assert ids(packets) == list(range(1, 9))
    assert not set().union(*map(experts, packets)) & {"skipped", "cut"}


@pytest.mark.parametrize("lost", [1, 8, 63, 64, 2048, 4032, 4095])
def test_a_start_in_the_middle_of_a_frame(tmp_path: Path, lost: int) -> None:
    packets = seen(tmp_path / "a.pcapng", Segment(True, b"".join(ASKS)[lost:]))
    assert ids(packets) == list(range(2, 9))
    assert sum(len(each) // 2 for packet in packets for each in packet.get("vchannel.skipped", [])) == FRAME_SIZE - lost
    assert "skipped" in experts(packets[0])


def test_junk_and_a_refused_header_between_frames(tmp_path: Path) -> None:
    bad = evolve(Frame.decode(ASKS[1]), request_length=4033).encode()
    packets = seen(tmp_path / "a.pcapng", Segment(True, ASKS[0] + b"login: " * 10 + ASKS[2] + bad + ASKS[3]))
    assert ids(packets) == [1, 3, 4]
    skipped = b"".join(bytes.fromhex(each) for packet in packets for each in packet.get("vchannel.skipped", []))
    assert skipped == b"login: " * 10 + bad


def test_odd_header_is_accepted_only_after_a_good_frame(tmp_path: Path) -> None:
    """An odd header is accepted right after a good frame, and does not vouch for the next one."""
    odd = [evolve(Frame.decode(frame), sub_command=0).encode() for frame in ASKS]
    small = evolve(Frame.decode(ASKS[1]), reserved=5).encode()  # looks like a header at an offset of 4 bytes
    for stream, expected in (
        (ASKS[0] + odd[1] + ASKS[2], [1, 2, 3]),
        (odd[0] + ASKS[1], [2]),
        (ASKS[0] + odd[1] + odd[2] + ASKS[3], [1, 2, 4]),
        (ASKS[0] + small + ASKS[2] + ASKS[3], [1, 2, 3, 4]),
    ):
        for mss in 1448, 1 << 15:
            packets = seen(tmp_path / "a.pcapng", Segment(True, stream), mss=mss)
            assert ids(packets) == taken(stream, Role.HOST) == expected
            fields = {"sub_command", "reserved"}
            assert bool(fields & set().union(*map(experts, packets))) == (2 in expected and 1 in expected)


def test_direction_if_the_guest_listens(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(tcp([Segment(False, ASKS[0]), Segment(True, answer(1))]))
    turned = ["-o", "vchannel.guest_listens:TRUE"]
    packets = [packet for packet in look(path, *DECODE_AS, *turned) if "vchannel.channel" in packet]
    assert [packet["vchannel.direction"] for packet in packets] == [["guest>host"], ["host>guest"]]
    assert all(packet["vchannel.host_command"] == ["5"] for packet in packets)


def taken(stream: bytes, role: Role) -> list[int]:
    """Return the ids of the frames that the codec finds."""
    connection, found = Connection(role), []
    connection.receive_data(stream)
    while (event := connection.next_event()) is not NEED_DATA:
        if isinstance(event, Request | Response):
            found.append(event.request_id)
        elif isinstance(event, UnsolicitedResponse):
            found.append(event.response.request_id)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_captures_as_a_stream(tmp_path: Path, path: Path) -> None:
    """The dissector finds the same frames as the codec, also in a capture with damage."""
    records = load(path).records
    packets = seen(
        tmp_path / "a.pcapng", *(Segment(record.direction is Direction.TO_HOST, record.raw) for record in records)
    )
    for way, role in (Direction.TO_HOST, Role.HOST), (Direction.TO_GUEST, Role.GUEST):
        expected = taken(b"".join(record.raw for record in records if record.direction is way), role)
        assert ids([packet for packet in packets if packet["vchannel.direction"][0] == way.value]) == expected


@pytest.mark.parametrize("seed", range(4))
def test_frames_in_a_damaged_stream_are_those_of_the_codec(tmp_path: Path, seed: int) -> None:
    """Frames lack pieces, and junk is between them."""
    random = Random(seed)
    stream = b""
    for frame in ASKS * 4:
        if random.random() < 0.3:
            start = random.randrange(FRAME_SIZE)
            stream += frame[start : random.randrange(start, FRAME_SIZE)] + random.randbytes(random.choice([0, 7, 5000]))
        else:
            stream += frame
    stream += b"".join(ASKS[:3])  # the last one may be incomplete
    packets = seen(tmp_path / "a.pcapng", Segment(True, stream))
    assert ids(packets) == taken(stream, Role.HOST)


def test_tcp_is_not_dissected_without_decode_as(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(tcp([Segment(True, ASKS[0])]))
    assert not tshark(tmp_path, "-r", path, "-Y", "vchannel")


# -- a real connection


@contextmanager
def sniffed(home: Path, port: int, *fields: str) -> Iterator[subprocess.Popen[bytes]]:
    """tshark's lines about a port of the loopback, as they appear. This needs root, or the right to use dumpcap."""
    words = [word for field in fields for word in ("-e", field)]
    live = ["--log-domains=Main", "--log-level=info"]  # else tshark 4.4 does not report that it captures
    live += ["-i", "lo", "-f", f"tcp port {port}", "-l", "-d", f"tcp.port=={port},vchannel", "-Y", "vchannel"]
    with (home / "errors").open("wb") as errors, started(
        command(*live, "-T", "fields", "-E", "separator=|", *words),
        env=environment(home), stdout=subprocess.PIPE, stderr=errors, bufsize=0,
    ) as process:  # fmt: skip

        def printed() -> str:
            return (home / "errors").read_text(errors="replace")

        # tshark prints " File: " when the filter is active.
        until(lambda: " File: " in printed() or process.poll() is not None, "the capture")
        if " File: " not in printed():
            pytest.skip(f"can't capture on lo: {' '.join(printed().split())}")
        yield process
        process.terminate()  # also ends dumpcap
        process.wait(TIMEOUT)


def test_live_capture_of_a_daemon_on_tcp(tmp_path: Path) -> None:
    fields = ["direction", "host_command", "text", "response_to"]
    with (
        held_port() as port,
        Serving("--sock", f"tcp:127.0.0.1:{port}", "--guest-serial", "1234ABC567890", cwd=tmp_path),
        sniffed(tmp_path, port, *(f"vchannel.{field}" for field in fields)) as tshark_here,
        fake_guest(("127.0.0.1", port)) as guest,
    ):
        assert guest.serial() == "1234ABC567890"
        guest.ask(HostCommand.HOST_MODEL)
        seen = [line_from(tshark_here).split("|") for _ in range(4)]
    assert [each[:3] for each in seen] == [
        ["guest>host", "5", ""],
        ["host>guest", "5", "1234ABC567890"],
        ["guest>host", "15", ""],
        ["host>guest", "15", "Virtualhost"],
    ]
    assert all(each[3].isdigit() == (each[0] == "host>guest") for each in seen)
