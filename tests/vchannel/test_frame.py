from __future__ import annotations

import struct
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vchannel import (
    DATA_SIZE,
    FRAME_SIZE,
    HEADER_FIELDS,
    HEADER_SIZE,
    Connection,
    Frame,
    FrameRefused,
    MisuseError,
    Refusal,
    Role,
    refusal,
)
from vchannel.frame import find_header

GOOD = Frame(request_id=1, is_request=1, needs_response=1, command=5)


def with_field(name: str, value: Any) -> Frame:
    changes: dict[str, Any] = {name: value}
    return attrs.evolve(GOOD, **changes)


def test_layout() -> None:
    frame = Frame(
        0x0807060504030201, bytes(range(16)), 10_000_000, 1, 0, 1, 3, 0, 17, 1, 0, data=b"ab\0", padding=b"\0x"
    )
    raw = frame.encode()
    assert len(raw) == FRAME_SIZE
    assert raw[:8] == bytes([1, 2, 3, 4, 5, 6, 7, 8])
    assert raw[8:24] == bytes(range(16))
    assert raw[24:32] == struct.pack("<Q", 10_000_000)
    assert raw[32:64] == struct.pack("<8i", 1, 0, 1, 3, 0, 17, 1, 0)
    assert raw[64:69] == b"ab\0\0x"
    assert not any(raw[69:])
    assert Frame.decode(raw) == frame


@given(st.binary(max_size=100), st.integers(0, FRAME_SIZE), st.sampled_from([b"\0", b"\1", b"\xff"]))
def test_any_bytes_survive_decoding_and_encoding(some: bytes, place: int, fill: bytes) -> None:
    raw = (fill * place + some)[:FRAME_SIZE].ljust(FRAME_SIZE, fill)
    assert Frame.decode(raw).encode() == raw


@given(
    st.builds(
        Frame,
        request_id=st.integers(0, 2**64 - 1),
        guest_uuid=st.binary(min_size=16, max_size=16),
        guest_id=st.integers(0, 2**64 - 1),
        **dict.fromkeys(HEADER_FIELDS[3:], st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, 14]))),
        data=st.just(b""),
        padding=st.binary(max_size=DATA_SIZE),
    )
)
def test_any_fields_survive_encoding_and_decoding(frame: Frame) -> None:
    again = Frame.decode(frame.encode())
    assert again.header == frame.header
    assert again.encode() == frame.encode()


@given(st.binary(max_size=DATA_SIZE), st.sampled_from([(1, 0, "request_length"), (0, 1, "response_length")]))
def test_length_determines_the_data(data: bytes, flags: tuple[int, int, str]) -> None:
    is_request, is_response, length = flags
    frame = attrs.evolve(with_field(length, len(data)), is_request=is_request, is_response=is_response, data=data)
    assert Frame.decode(frame.encode()) == frame


@pytest.mark.parametrize("size", [0, 63, 4095, 4097])
def test_a_frame_is_4096_bytes(size: int) -> None:
    with pytest.raises(MisuseError, match=f"4096 bytes, these are {size}: use Connection"):
        Frame.decode(bytes(size))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_id": -1}, r"request_id is -1: it takes a whole number 0\.\."),
        ({"request_id": 1 << 64}, r"request_id is 18446744073709551616"),
        ({"command": 1 << 31}, r"command is 2147483648: .*2147483647"),
        ({"command": "5"}, r"command is '5'"),
        ({"guest_uuid": b"short"}, r"guest_uuid is b'short': it takes exactly 16 bytes"),
        ({"guest_uuid": None}, r"guest_uuid is None"),
        ({"data": bytes(DATA_SIZE), "padding": b"x"}, "data of 4033 bytes: a frame carries at most 4032"),
    ],
)
def test_field_out_of_range_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        attrs.evolve(GOOD, **change).encode()


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"is_request": 2}, "is_request", 2),
        ({"is_request": 0, "is_response": -1}, "is_response", -1),
        ({"needs_response": 256}, "needs_response", 256),
        ({"is_response": 1}, "is_response", 1),
        ({"is_request": 0}, "is_response", 0),
        ({"request_length": -1}, "request_length", -1),
        ({"request_length": 4033}, "request_length", 4033),
        ({"response_length": 4033}, "response_length", 4033),
        ({"response_length": -(2**31)}, "response_length", -(2**31)),
    ],
)
def test_unacceptable_headers_are_refused(change: dict[str, Any], field: str, value: int) -> None:
    found = refusal(attrs.evolve(GOOD, **change).encode()[:HEADER_SIZE], convincing=False)
    assert isinstance(found, Refusal)
    assert (found.field, found.value) == (field, value)
    assert str(value) in str(found)


@pytest.mark.parametrize(
    ("field", "value"), [("sub_command", 0), ("sub_command", 256), ("sub_command", -1), ("reserved", 1)]
)
def test_odd_header_is_acceptable_but_not_convincing(field: str, value: int) -> None:
    header = with_field(field, value).encode()[:HEADER_SIZE]
    assert refusal(header, convincing=False) is None
    found = refusal(header, convincing=True)
    assert found is not None
    assert (found.field, found.value) == (field, value)


@pytest.mark.parametrize("guest_id", [0, 3_000_000, 10_000_000])
@pytest.mark.parametrize("guest_uuid", [bytes(16), bytes(range(100, 116))])
@pytest.mark.parametrize(("is_request", "is_response"), [(1, 0), (0, 1)])
@pytest.mark.parametrize("needs_response", [0, 1])
def test_header_is_found_only_at_a_frames_start(
    needs_response: int, is_request: int, is_response: int, guest_uuid: bytes, guest_id: int
) -> None:
    """In a stream of equal frames, no offset except a frame's start looks like a header."""
    for length in (0, 1, 14, 255, 256, DATA_SIZE):
        for command in range(20):
            frame = Frame(
                0xC0FFEE01,
                guest_uuid,
                guest_id,
                is_request,
                is_response,
                needs_response,
                length * is_request,
                length * is_response,
                command,
                data=b"0" * (length - 1) + b"\0" if length else b"",
            ).encode()
            stream = frame * 3
            assert find_header(stream, 0, 1) == 0
            assert find_header(stream, 1, FRAME_SIZE + 1) == FRAME_SIZE, (length, command)


interesting = st.sampled_from([0, 1, 2, -1, 14, 255, 256, DATA_SIZE, DATA_SIZE + 1, 0x0E00, 0x0F00, 0x0FFF, 0x10000])


@given(st.lists(interesting, min_size=8, max_size=8))
def test_three_implementations_of_the_header_check_agree(fields: list[int]) -> None:
    """`refusal`, `find_header` and the connection's optimised check agree on every header."""
    is_request, is_response, needs, request_length, response_length, command, sub_command, reserved = fields
    raw = Frame(
        1, bytes(16), 0, is_request, is_response, needs, request_length, response_length, command, sub_command, reserved
    ).encode()
    convinces = refusal(raw[:HEADER_SIZE], convincing=True) is None
    assert (find_header(raw, 0, 1) == 0) == convinces
    connection = Connection(Role.HOST)
    connection.receive_data(raw)
    assert isinstance(connection.next_event(), FrameRefused) != convinces
