"""Resynchronisation after damage in a stream."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vchannel.feeding import Feed, drain, facts, guest, host, in_pieces, whole
from vchannel import (
    DATA_SIZE,
    FRAME_SIZE,
    BytesSkipped,
    Event,
    Frame,
    FrameRefused,
    GuestCommand,
    HostCommand,
    Request,
    Response,
    Role,
    SkipReason,
    UnsolicitedResponse,
    encode_text,
)
from vchannel.frame import find_header

GOOD_ID, OTHER_ID = 0xC0FFEE01, 0xC0FFEE02
GOOD = Request.of(HostCommand.GUEST_SERIAL, request_id=GOOD_ID).raw
OTHER = Request.of(HostCommand.GUEST_CPU, request_id=OTHER_ID).raw
QUIET = Request.of(HostCommand.GUEST_INFO, request_id=OTHER_ID, needs_response=False).raw
ANSWER = Request.of(GuestCommand.GET_IP, request_id=OTHER_ID).reply().raw
SMALL_ANSWER = Request.of(GuestCommand.GET_IP, request_id=OTHER_ID).reply(b"\0").raw


def answered(events: list[Event]) -> list[int]:
    """Return the ids of the requests among the events."""
    return [event.request_id for event in events if isinstance(event, Request)]


def accounted(events: list[Event]) -> bytes:
    """Return the bytes of all events, in order."""
    return b"".join(
        event.data if isinstance(event, BytesSkipped) else event.raw
        for event in events
        if isinstance(event, Request | Response | UnsolicitedResponse | BytesSkipped)
    )


JUNK: dict[str, Callable[[int], bytes]] = {
    "random": lambda size: random.Random(size).randbytes(size),
    "zeros": bytes,
    "ones": lambda size: b"\1" * size,
    "text": lambda size: (b"login: \r\n" * size)[:size],
    "words of 1": lambda size: (b"\1\0\0\0" * size)[:size],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", JUNK)
def test_junk_before_frames(feed: Feed, kind: str) -> None:
    for size in 1, 3, 4, 8, 31, 63, 64, 65, 100, 1000, 4032, 4033, 4095, 4096, 4097, 5000, 9000:
        junk = JUNK[kind](size)
        events = feed(host(), junk + GOOD + OTHER + GOOD)
        assert answered(events) == [GOOD_ID, OTHER_ID, GOOD_ID], size
        assert isinstance(events[0], FrameRefused), size
        assert accounted(events) == junk + GOOD + OTHER + GOOD, size
        skipped = [event for event in events if isinstance(event, BytesSkipped)]
        assert sum(len(event.data) for event in skipped) == size
        assert all(event.data and event.reason is SkipReason.OUT_OF_STEP for event in skipped), size


@pytest.mark.slow
@pytest.mark.parametrize("kind", JUNK)
def test_junk_between_frames(feed: Feed, kind: str) -> None:
    for size in 1, 3, 4, 8, 24, 63, 100, 1000, 4092, 4095, 4097, 5000:
        events = feed(host(), GOOD + JUNK[kind](size) + OTHER + GOOD)
        assert answered(events) == [GOOD_ID, OTHER_ID, GOOD_ID], size


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", encode_text("1648798789"), b"x" * DATA_SIZE])
def test_a_start_in_the_middle(feed: Feed, data: bytes) -> None:
    whole_frame = Request.of(HostCommand.GUEST_TIMESTAMP, data).raw
    for start in 1, 4, 8, 24, 32, 63, 64, 65, 100, 2048, 4000, 4095:
        assert answered(feed(host(), whole_frame[start:] + GOOD + OTHER)) == [GOOD_ID, OTHER_ID], start


def test_a_start_anywhere_in_the_middle() -> None:
    for start in range(1, FRAME_SIZE):
        assert answered(whole(host(), GOOD[start:] + OTHER + GOOD)) == [OTHER_ID, GOOD_ID], start


def test_half_a_frame_then_a_fresh_one(feed: Feed) -> None:
    """Without a silence, the half frame is completed by the next frame's header; the frame after that is received."""
    events = feed(host(), GOOD[:2048] + OTHER + GOOD)
    assert answered(events)[-1] == GOOD_ID
    assert accounted(events) == GOOD[:2048] + OTHER + GOOD


def with_field(offset: int, value: int) -> bytes:
    return GOOD[:offset] + struct.pack("<i", value) + GOOD[offset + 4 :]


@pytest.mark.parametrize(
    ("field", "offset", "value"),
    [
        ("is_request", 32, 2),
        ("is_request", 32, -1),
        ("is_response", 36, 1),
        ("is_response", 32, 0),
        ("needs_response", 40, 2),
        ("needs_response", 40, -1),
        ("request_length", 44, -1),
        ("request_length", 44, 4033),
        ("request_length", 44, 2**31 - 1),
        ("response_length", 48, -(2**31)),
        ("response_length", 48, 5000),
    ],
)
@pytest.mark.parametrize("before", [b"", OTHER], ids=["first", "behind a good frame"])
def test_a_header_out_of_range(feed: Feed, before: bytes, field: str, offset: int, value: int) -> None:
    """Each such header is reported with its field, and the next good frame is received."""
    bad = with_field(offset, value)
    end = host()
    events = feed(end, before + bad + bad + GOOD)
    refused = [event for event in events if isinstance(event, FrameRefused)]
    expected = 0 if field == "is_response" and offset == 32 else value
    assert [(event.refusal.field, event.refusal.value) for event in refused] == [(field, expected)] * 2
    assert [event.offset for event in refused] == [len(before), len(before) + FRAME_SIZE]
    assert [event.header for event in refused] == [bad[:64]] * 2
    assert f"{field} is {expected}" in str(refused[0])
    assert answered(events)[-1] == GOOD_ID
    assert accounted(events) == before + bad + bad + GOOD


def test_bytes_lost_between_frames() -> None:
    """At most one frame after a missing piece is lost, because the damaged frame contains its start."""
    for lost in range(1, FRAME_SIZE):
        events = whole(host(), GOOD + GOOD[lost:] + OTHER + OTHER + GOOD)
        assert answered(events)[-2:] == [OTHER_ID, GOOD_ID], lost


@pytest.mark.parametrize(("offset", "value"), [(56, 0), (56, 1000), (56, -1), (60, 1000), (60, -1)])
def test_odd_fields_after_a_good_frame_are_accepted(feed: Feed, offset: int, value: int) -> None:
    odd = with_field(offset, value)
    events = feed(host(), GOOD + odd + GOOD)
    assert answered(events) == [GOOD_ID, GOOD_ID, GOOD_ID]
    assert isinstance(events[1], Request)
    frame, reply = events[1].frame, events[1].reply().frame
    assert (reply.sub_command, reply.reserved) == (frame.sub_command, frame.reserved), (
        "the answer does not repeat the odd fields"
    )


@pytest.mark.parametrize("raw", [GOOD, QUIET, ANSWER, SMALL_ANSWER], ids=["asks", "notifies", "answers", "one byte"])
@pytest.mark.parametrize("reserved", [1, 2, 16, 255])
def test_small_reserved_behind_a_good_frame_loses_no_frame(feed: Feed, raw: bytes, reserved: int) -> None:
    """At an offset of 4 bytes, the odd frame also looks like a header. Neither it nor later frames may be lost."""
    odd = raw[:60] + struct.pack("<i", reserved) + raw[64:]
    stream = GOOD + odd + OTHER + GOOD
    events = feed(host(), stream)
    assert [getattr(event, "raw", b"") for event in events] == [GOOD, odd, OTHER, GOOD]


@pytest.mark.parametrize("guest_id", [0, 3_000_000, 10_000_000])
@pytest.mark.parametrize("data", [b"", b"\0", b"\1", b"5\0", bytes(4), b"x" * DATA_SIZE], ids=repr)
def test_no_small_reserved_shows_a_usual_header_within_its_frame(guest_id: int, data: bytes) -> None:
    for command in range(1, 20):
        for is_request, needs, sub_command, reserved in itertools.product((0, 1), (0, 1), (0, 1, 256), (1, 2, 7, 255)):
            lengths = (len(data), 0) if is_request else (0, len(data))
            odd = Frame(
                1,
                bytes(16),
                guest_id,
                is_request,
                1 - is_request,
                needs,
                *lengths,
                command,
                sub_command,
                reserved,
                data,
            )
            assert find_header(odd.encode(), 1, DATA_SIZE + 1, usual=True) < 0, odd


@pytest.mark.parametrize("guest_id", [0, 10_000_000])
@pytest.mark.parametrize("junk", [4, 8, 24, 28])
def test_junk_before_a_usual_frame_loses_no_frame(feed: Feed, guest_id: int, junk: int) -> None:
    """A usual frame, read a few bytes early, must not count as an odd frame, which would be accepted after a good one."""
    good = Request.of(HostCommand.GUEST_TIMESTAMP, guest_id=guest_id, request_id=GOOD_ID).raw
    assert answered(feed(host(), good + bytes(junk) + good + good)) == [GOOD_ID] * 3


@pytest.mark.parametrize(("seen", "taken"), [(4032, False), (4033, True)])
def test_odd_frame_is_refused_if_a_usual_header_is_inside(seen: int, taken: bool) -> None:
    """The search covers every whole header within the odd frame's 4096 bytes."""
    odd = with_field(56, 0)[:seen]
    events = whole(host(), OTHER + odd + GOOD + GOOD + GOOD)
    assert isinstance(events[1], Request) == taken


@pytest.mark.parametrize(("field", "offset", "value"), [("sub_command", 56, 0), ("reserved", 60, -1)])
def test_odd_fields_at_the_start_are_refused(feed: Feed, field: str, offset: int, value: int) -> None:
    events = feed(host(), with_field(offset, value) + GOOD)
    assert isinstance(events[0], FrameRefused)
    assert (events[0].refusal.field, events[0].refusal.value) == (field, value)
    assert answered(events) == [GOOD_ID]


def test_odd_fields_after_a_refused_frame_are_refused(feed: Feed) -> None:
    odd = with_field(60, -1)
    events = feed(host(), OTHER + with_field(44, 5000) + odd + GOOD)
    assert answered(events) == [OTHER_ID, GOOD_ID]
    assert [event.refusal.field for event in events if isinstance(event, FrameRefused)] == [
        "request_length",
        "reserved",
    ]


def test_an_unusual_guest_id_is_found_after_junk(feed: Feed) -> None:
    unusual = Request.of(HostCommand.GUEST_SERIAL, guest_id=1 << 40, request_id=GOOD_ID).raw
    assert answered(feed(host(), bytes(100) + unusual + OTHER)) == [GOOD_ID, OTHER_ID]


def test_the_earlier_of_two_headers_is_found() -> None:
    question, answer = GOOD[:64], Request.of(HostCommand.GUEST_SERIAL).reply().raw[:64]
    for header, other in ((question, answer), (answer, question)):
        assert find_header(header + other, 0, 65) == 0
        assert find_header(header + other, 1, 65) == 64


def test_a_guest_gets_back_in_step_too(feed: Feed) -> None:
    end = guest()
    question = Request.of(HostCommand.GUEST_SERIAL)
    end.send(question)
    events = feed(end, bytes(100) + question.reply(b"1\0").raw + Request.of(GuestCommand.POWEROFF).raw)
    assert [type(event) for event in events] == [FrameRefused, BytesSkipped, Response, Request]
    assert end.role is Role.GUEST


def test_endless_junk_is_reported_as_it_arrives() -> None:
    end = host()
    out = 0
    for _ in range(64):
        end.receive_data(b"\xa5" * 1000)
        out += len(accounted(drain(end)))
        assert end.held < FRAME_SIZE
    assert out + end.held == 64_000


pieces = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([GOOD, OTHER, GOOD[:2048], GOOD[2048:], with_field(44, 5000), bytes(64), bytes(4096), b"\1\0\0\0"]),
    st.builds(lambda data, command: Request.of(command, data).raw, st.binary(max_size=DATA_SIZE), st.integers(0, 20)),
    st.builds(lambda request, data: Request.of(request).reply(data).raw, st.integers(0, 20), st.binary(max_size=64)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 99), st.integers(0, 5000)),
)
streams = st.lists(pieces, max_size=8).map(b"".join)


@pytest.mark.slow
@given(streams, st.lists(st.integers(0, 6000), max_size=30))
def test_any_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    at = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]
    one, other = host(), host()
    events = whole(one, stream)
    assert facts(in_pieces(other, chunks)) == facts(events)
    assert one.held == other.held == len(stream) - len(accounted(events))
    assert accounted(events) == stream[: len(stream) - one.held]


@given(streams)
def test_third_good_frame_after_any_bytes_is_received(stream: bytes) -> None:
    """A stream that ends inside a frame costs one good frame, or two if the first seemed to confirm the damage; never three."""
    events = whole(host(), stream + GOOD + GOOD + OTHER)
    assert answered(events)[-1] == OTHER_ID


@given(
    st.integers(), st.integers(0, 20_000), st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 1)), max_size=200)
)
def test_arbitrary_bytes_never_raise(seed: int, size: int, plain: list[tuple[int, int]]) -> None:
    """Random bytes, with enough zeros and ones to produce valid flags and lengths too."""
    noise = bytearray(random.Random(seed).randbytes(size))
    for place, value in plain:
        noise[place : place + 8] = bytes([value, 0, 0, 0, 0, 0, 0, 0])
    data = bytes(noise)
    for end in host(), guest():
        events = whole(end, data)
        end.discard_partial()
        assert accounted(events + drain(end)) == data
        assert end.held == 0
