"""The codec's speed: frames through decode → event → reply → encode, and skipped junk.

All measurements are in one run, several times, alternating with a lower bound. The best of each counts, because noise
only adds time. No number is asserted.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from typing import Final

from vchannel import (
    DATA_SIZE,
    FRAME_SIZE,
    NEED_DATA,
    BytesSkipped,
    Connection,
    FrameRefused,
    HostCommand,
    PreparedAnswer,
    Request,
    Role,
    UnsolicitedResponse,
    encode_text,
)

READ: Final = 65536
"""Bytes of one read on a busy channel."""
FRAMES: Final = READ // FRAME_SIZE
ROUNDS: Final = 200
REPEATS: Final = 15

SERIAL: Final = PreparedAnswer(HostCommand.GUEST_SERIAL, encode_text("0000000000000"))


def requests() -> bytes:
    guest = Connection(Role.GUEST)
    return b"".join(guest.send(Request.of(HostCommand.GUEST_SERIAL)) for _ in range(FRAMES))


def best(*runs: Callable[[], object]) -> list[float]:
    """Measure the functions in turns; return the shortest time of each, in seconds."""
    times = [float("inf")] * len(runs)
    for _ in range(REPEATS):
        for place, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            times[place] = min(times[place], time.perf_counter() - begin)
    return times


def floor(read: bytes) -> None:
    """The lower bound of any Python codec: unpack each header, copy each frame."""
    unpack = struct.Struct("<Q16sQ8i").unpack_from
    for _ in range(ROUNDS):
        for start in range(0, READ, FRAME_SIZE):
            unpack(read, start)
            read[start : start + FRAME_SIZE]


def answered(read: bytes) -> None:
    """Run a host that answers each request of each read."""
    connection = Connection(Role.HOST)
    for _ in range(ROUNDS):
        connection.receive_data(read)
        out = []
        while (event := connection.next_event()) is not NEED_DATA:
            match event:
                case Request():
                    out.append(connection.answer(event, SERIAL))
                case _:
                    raise AssertionError(event)
        b"".join(out)


def plainly(read: bytes) -> None:
    """Run the same host without prepared answers: it encodes each response."""
    connection = Connection(Role.HOST)
    for _ in range(ROUNDS):
        connection.receive_data(read)
        while (event := connection.next_event()) is not NEED_DATA:
            assert isinstance(event, Request)
            connection.send(event.reply(encode_text("0000000000000")))


def one_by_one(read: bytes) -> None:
    """Run the same host with one read per frame, as with a slow guest."""
    connection = Connection(Role.HOST)
    reads = [read[start : start + FRAME_SIZE] for start in range(0, READ, FRAME_SIZE)]
    for _ in range(ROUNDS):
        for each in reads:
            connection.receive_data(each)
            while (event := connection.next_event()) is not NEED_DATA:
                assert isinstance(event, Request)
                connection.answer(event, SERIAL)


def past(junk: bytes) -> Callable[[], int]:
    """Receive junk and two good frames after it, until the event of one of the good frames.

    If the junk contains convincing headers, the last of them claims a part of the first good frame.
    """
    good = requests()[:FRAME_SIZE]

    def run() -> int:
        connection = Connection(Role.HOST)
        connection.receive_data(junk + good + good)
        events = 0
        while not (isinstance(event := connection.next_event(), Request) and event.raw == good):
            assert isinstance(event, BytesSkipped | FrameRefused | Request | UnsolicitedResponse)
            events += 1
        return events

    return run


JUNK: Final = {
    "random bytes": os.urandom(READ),
    "zeros": bytes(READ),
    "text": b"Failed to retrieve message from host [timeout]\n" * (READ // 47),
    "refused frames": (requests()[:44] + struct.pack("<i", DATA_SIZE + 1) + bytes(FRAME_SIZE - 48)) * FRAMES,
    "near headers, every 16 bytes": (b"\1" + bytes(15)) * (READ // 16),
    "near headers, every 20 bytes": struct.pack("<5i", 1, 0, 1, 1, 2) * (READ // 20),
    "headers, every 12 bytes": struct.pack("<3i", 1, 0, 1) * (READ // 12),
    "headers, every 8 bytes": b"\1\0\0\0\0\0\0\0" * (READ // 8),
}


def main() -> None:
    read = requests()
    floor_time, answered_time, single_time, plain_time = best(
        lambda: floor(read), lambda: answered(read), lambda: one_by_one(read), lambda: plainly(read)
    )
    count = ROUNDS * FRAMES
    print("codec: decode → event → reply → encode, one process")
    for name, seconds in (
        ("floor (unpack and copy a frame)", floor_time),
        (f"{FRAMES} frames a read", answered_time),
        ("one frame a read", single_time),
        ("without a prepared answer", plain_time),
    ):
        print(
            f"  {name:36}{count / seconds:12,.0f} frames/s {seconds / count * 1e9:8.0f} ns/frame"
            f" {floor_time / seconds:6.2f} of the floor"
        )
    print("junk: 64 KiB before good frames")
    for name, junk in JUNK.items():
        (seconds,) = best(past(junk))
        print(f"  {name:36}{seconds * 1e3:12.3f} ms")


if __name__ == "__main__":
    main()
