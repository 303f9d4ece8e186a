"""A connection's state between events, frames at their limits, and exact errors."""

from __future__ import annotations

import struct
from collections.abc import Callable

import attrs
import pytest

from tests.vchannel.feeding import drain, host, whole
from vchannel import (
    DATA_SIZE,
    FRAME_SIZE,
    BytesSkipped,
    Frame,
    FrameRefused,
    GuestCommand,
    HostCommand,
    MisuseError,
    PreparedAnswer,
    Request,
    SkipReason,
    UnsolicitedResponse,
    refusal,
)
from vchannel.frame import counted_length

GOOD = Request.of(HostCommand.GUEST_SERIAL, request_id=1).raw
ODD = GOOD[:56] + struct.pack("<i", 0) + GOOD[60:]
"""A frame that is accepted only right after a good frame."""
BAD = GOOD[:44] + struct.pack("<i", -1) + GOOD[48:]


def kinds(data: bytes) -> list[type]:
    return [type(event) for event in whole(host(), data)]


def test_an_odd_frame_needs_a_good_one_right_before_it() -> None:
    assert kinds(GOOD + ODD + GOOD) == [Request, Request, Request]
    assert kinds(ODD + GOOD) == [FrameRefused, BytesSkipped, BytesSkipped, Request]
    assert kinds(GOOD + ODD + ODD + GOOD)[:3] == [Request, Request, FrameRefused]
    refused = kinds(GOOD + BAD + ODD + GOOD)
    assert (refused.count(FrameRefused), refused.count(Request)) == (2, 2)


def test_a_dropped_partial_frame_ends_the_step() -> None:
    end = host()
    assert [type(event) for event in whole(end, GOOD + ODD[:100])] == [Request]
    end.discard_partial()
    assert end.held == 0
    assert drain(end) == [BytesSkipped(ODD[:100], SkipReason.SILENCE, FRAME_SIZE)]
    assert end.held == 0
    assert isinstance(whole(end, ODD + GOOD)[0], FrameRefused)


def test_a_frame_received_before_the_dropped_bytes_are_read() -> None:
    end = host()
    assert whole(end, GOOD[:100]) == []
    end.discard_partial()
    assert [type(event) for event in whole(end, GOOD)] == [BytesSkipped, Request]


@pytest.mark.parametrize("size", [64, 100, 4095])
def test_a_dropped_partial_frame_ends_the_search(size: int) -> None:
    """The next byte begins a frame, although the search had not reached the expected start."""
    end = host()
    events = whole(end, BAD + b"x" * size)
    end.discard_partial(SkipReason.CLOSED)
    (dropped,) = drain(end)
    assert isinstance(dropped, BytesSkipped)
    skipped = b"".join(event.data for event in [*events, dropped] if isinstance(event, BytesSkipped))
    assert skipped == BAD + b"x" * size
    assert dropped.offset == len(skipped) - dropped.count
    assert end.held == 0
    (event,) = whole(end, GOOD)
    assert isinstance(event, Request)


def test_a_bad_frame_after_a_dropped_partial_frame_is_refused() -> None:
    end = host()
    whole(end, BAD)
    end.discard_partial()
    drain(end)
    assert isinstance(whole(end, BAD)[0], FrameRefused)


def test_places_in_the_stream_count_all_bytes() -> None:
    end = host()
    for data in (GOOD, GOOD[:10], GOOD[10:], BAD, GOOD):
        end.receive_data(data)
    events = drain(end)
    assert [type(event) for event in events] == [Request, Request, FrameRefused, BytesSkipped, BytesSkipped, Request]
    refused, first, second = events[2:5]
    assert isinstance(refused, FrameRefused)
    assert isinstance(first, BytesSkipped)
    assert isinstance(second, BytesSkipped)
    assert (refused.offset, first.offset, second.offset) == (8192, 8192, 8192 + first.count)
    assert first.count + second.count == FRAME_SIZE
    assert refused.header == BAD[:64]


@pytest.mark.parametrize("is_request", [0, 1])
@pytest.mark.parametrize("length", [0, DATA_SIZE])
@pytest.mark.parametrize("sub_command", [1, 255])
def test_a_first_frame_at_its_limits(is_request: int, length: int, sub_command: int) -> None:
    lengths = (length, 0) if is_request else (0, length)
    raw = Frame(
        7, bytes(16), 0, is_request, 1 - is_request, 0, *lengths, 99, sub_command, 0, b"x" * length
    ).encode()  # fmt: skip
    (event,) = whole(host(), raw)
    if is_request:
        assert isinstance(event, Request)
        assert (event.command, event.data, event.needs_response) == (99, b"x" * length, False)
    else:
        assert isinstance(event, UnsolicitedResponse)
        assert (event.response.command, event.response.data) == (99, b"x" * length)


def test_messages_have_the_data_that_they_are_made_of() -> None:
    request = Request.of(GuestCommand.GET_IP, b"ask")
    assert (request.data, request.frame.data, request.needs_response) == (b"ask", b"ask", True)
    response = request.reply(b"answer")
    assert (response.data, response.frame.data, response.command) == (b"answer", b"answer", GuestCommand.GET_IP)
    with pytest.raises(MisuseError, match="received 'text': it takes bytes"):
        host().receive_data("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_request": 2}, "is_request is 2: a flag is 0 or 1"),
        ({"is_response": 1}, "is_response is 1: exactly one of is_request (1) and is_response is 1"),
        ({"request_length": 4033}, "request_length is 4033: a length is 0..4032"),
        ({"sub_command": 256}, "sub_command is 256: only 1..255 convinces that a frame begins here"),
        ({"reserved": 1}, "reserved is 1: only 0 convinces that a frame begins here"),
        ({"request_length": 4032, "response_length": 4032, "sub_command": 255}, ""),
    ],
)
def test_reasons_for_refused_headers(changes: dict[str, int], text: str) -> None:
    header = attrs.evolve(Frame.decode(GOOD), **changes).encode()[:64]  # type: ignore[arg-type]
    assert str(refusal(header, convincing=True) or "") == text


@pytest.mark.parametrize(
    ("flags", "lengths", "counted"),
    [
        ((1, 0), (4032, 7), 4032),
        ((0, 1), (7, 4032), 4032),
        ((1, 0), (4033, 7), 0),
        ((1, 0), (-1, 7), 0),
        ((1, 1), (7, 7), 0),
        ((0, 0), (7, 7), 0),
    ],
)
def test_the_length_of_data_in_a_header(flags: tuple[int, int], lengths: tuple[int, int], counted: int) -> None:
    assert counted_length(*flags, *lengths) == counted


def test_a_prepared_answer_is_a_response_without_its_beginning() -> None:
    prepared = PreparedAnswer(HostCommand.GUEST_SERIAL, b"ab\0")
    assert (prepared.command, prepared.data) == (HostCommand.GUEST_SERIAL, b"ab\0")
    assert prepared.tail == Request.of(HostCommand.GUEST_SERIAL).reply(b"ab\0").raw[32:]
    assert prepared.repeated == struct.pack("<3i", 5, 1, 0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Frame.decode("text"), "a frame is bytes, this is 'text'"),  # type: ignore[arg-type]
        (lambda: Frame.decode(b""), "a frame is 4096 bytes, these are 0: use Connection for a stream"),
        (lambda: Frame(guest_uuid=b"x").encode(),
         "guest_uuid is b'x': it takes exactly 16 bytes (uuid.UUID(…).bytes)"),
        (lambda: Frame(command=2**31).encode(),
         "command is 2147483648: it takes a whole number -2147483648..2147483647"),
        (lambda: Frame(guest_id=2**64).encode(),
         "guest_id is 18446744073709551616: it takes a whole number 0..18446744073709551615"),
        (lambda: host().send("text"),  # type: ignore[arg-type]
         "send('text'): it takes what Request.of() and Request.reply() make"),
    ],
)  # fmt: skip
def test_errors_for_mistakes_of_the_caller(make: Callable[[], object], why: str) -> None:
    with pytest.raises(MisuseError) as caught:
        make()
    assert str(caught.value) == why
