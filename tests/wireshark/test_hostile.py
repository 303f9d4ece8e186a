"""No packet causes an error in the dissector's code."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from tests.wireshark.looking import tshark
from tests.wireshark.packets import Segment, tcp, upper_pdus
from vchannel import FRAME_SIZE

pytestmark = pytest.mark.needs("tshark")


def record(random: Random) -> bytes:
    """Return a record whose tags may claim too many bytes, and whose body may be almost a frame."""
    tags = [
        struct.pack(">HH", random.choice([0, 1, 2, 3, 4, 9, 65535]), random.choice([0, 3, 60000])) + random.randbytes(3)
        for _ in range(random.randrange(4))
    ]
    length = random.choice([0, 5, 4032, -1, (1 << 31) - 1])
    header = struct.pack("<Q16sQ8i", 1, bytes(16), 0, 1, 0, 1, length, 0, random.randrange(-3, 20), 1, 0)
    body = random.choice([b"", random.randbytes(random.randrange(5000)), header + random.randbytes(FRAME_SIZE - 64)])
    return b"".join(tags) + random.choice([bytes(4), b""]) + body


@pytest.mark.parametrize("name", [b"vchannel_record", b"vchannel"])
def test_any_record_is_dissected_without_an_error(tmp_path: Path, name: bytes) -> None:
    random = Random(1)
    path = tmp_path / "a.pcapng"
    path.write_bytes(upper_pdus(name, (record(random) for _ in range(200))))
    shown = tshark(tmp_path, "-2", "-r", path, "-V")
    assert shown.count("Virtual DSM vchannel, ") > 50
    assert "Lua Error" not in shown


def test_any_stream_is_dissected_without_an_error(tmp_path: Path) -> None:
    random = Random(1)
    parts = (random.choice([record(random), bytes(5000), random.randbytes(9000)]) for _ in range(60))
    path = tmp_path / "a.pcapng"
    path.write_bytes(tcp(Segment(random.random() < 0.5, part) for part in parts))
    shown = tshark(tmp_path, "-2", "-r", path, "-V", "-d", "tcp.port==12345,vchannel")
    assert "Virtual DSM vchannel, " in shown
    assert "Lua Error" not in shown
