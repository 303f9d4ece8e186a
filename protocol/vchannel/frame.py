"""The 4096-byte frame: `Frame` ↔ bytes, and the plausibility of headers.

The layout and its sources are in ``protocol/README.md``. All integers are little-endian.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from attrs import field, fields_dict, frozen

from vchannel.errors import MisuseError, shorten

FRAME_SIZE: Final = 4096
"""Bytes of every frame, in both directions."""

HEADER_SIZE: Final = 64
"""Bytes of the header, before the data."""

DATA_SIZE: Final = FRAME_SIZE - HEADER_SIZE
"""Maximum bytes of data in a frame (4032)."""

FLAGS_OFFSET: Final = 32
COMMAND_OFFSET: Final = 52
COMMAND_END: Final = 56

NIL_UUID: Final = bytes(16)
USUAL_GUEST_ID: Final = 10_000_000
"""The guest id of nearly every known frame."""

HEADER: Final = struct.Struct("<Q16sQ8i")
WHOLE: Final = struct.Struct(f"<Q16sQ8i{DATA_SIZE}s")
"""A header and its data; packing pads the data with zeros."""

CHECKED: Final = struct.Struct("<8i")
"""The part of a header from the flags on, which `refusal` checks."""
REPEATED: Final = struct.Struct("<2i")
"""The last two fields of a header, sub-command and reserved."""

SUB_COMMAND_LIMIT: Final = 255
"""Maximum sub-command. The only genuine one is 1; out of step, text or zeros are read as one."""

_Header = tuple[int, bytes, int, int, int, int, int, int, int, int, int]
_U64 = range(1 << 64)
_I32 = range(-(1 << 31), 1 << 31)


@frozen
class Frame:
    """One frame with the raw value of every header field, plausible or not.

    `data` has the length that the header declares for its direction; it is empty if that length or the flags are out of
    range. `padding` is the rest without trailing zeros. Decoding and encoding any 4096 bytes gives the same bytes.
    """

    request_id: int = 0
    guest_uuid: bytes = field(default=NIL_UUID, repr=bytes.hex)
    guest_id: int = USUAL_GUEST_ID
    is_request: int = 0
    is_response: int = 0
    needs_response: int = 0
    request_length: int = 0
    response_length: int = 0
    command: int = 0
    sub_command: int = 1
    reserved: int = 0
    data: bytes = b""
    padding: bytes = b""

    @classmethod
    def decode(cls, raw: bytes | bytearray | memoryview) -> Frame:
        """Decode a frame.

        Raises:
            MisuseError: `raw` is not 4096 bytes long. No other content raises.
        """
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise MisuseError(f"a frame is bytes, this is {shorten(raw)}")
        if len(raw) != FRAME_SIZE:
            raise MisuseError(f"a frame is {FRAME_SIZE} bytes, these are {len(raw)}: use Connection for a stream")
        header: _Header = HEADER.unpack_from(raw)
        body = bytes(raw[HEADER_SIZE:])
        length = counted_length(header[3], header[4], header[6], header[7])
        return cls(*header, data=body[:length], padding=body[length:].rstrip(b"\0"))

    def encode(self) -> bytes:
        """Return the frame's 4096 bytes.

        Raises:
            MisuseError: a field is out of range; the message names it.
        """
        header = self.header
        body = self.data + self.padding if self.padding else self.data
        try:
            raw = WHOLE.pack(*header, body)
        except struct.error:
            raise misfit(header, body) from None
        if len(body) > DATA_SIZE or len(self.guest_uuid) != len(NIL_UUID):
            raise misfit(header, body)
        return raw

    @property
    def header(self) -> _Header:
        """The eleven header fields in their order on the wire."""
        return (
            self.request_id, self.guest_uuid, self.guest_id, self.is_request, self.is_response,
            self.needs_response, self.request_length, self.response_length, self.command,
            self.sub_command, self.reserved,
        )  # fmt: skip


HEADER_FIELDS: Final = tuple(name for name in fields_dict(Frame) if name not in {"data", "padding"})
"""The header's field names, in their order on the wire."""


def counted_length(is_request: int, is_response: int, request_length: int, response_length: int) -> int:
    """Return how many bytes of data a header declares; 0 if its flags or that length are invalid."""
    match is_request, is_response:
        case 1, 0:
            length = request_length
        case 0, 1:
            length = response_length
        case _:
            return 0
    return length if 0 <= length <= DATA_SIZE else 0


def misfit(header: tuple[object, ...], data: object) -> MisuseError:
    """Return the error for the field that can't be packed."""
    for name, value in zip(HEADER_FIELDS, header, strict=True):
        if name == "guest_uuid":
            if not isinstance(value, bytes) or len(value) != len(NIL_UUID):
                return MisuseError(f"guest_uuid is {shorten(value)}: it takes exactly 16 bytes (uuid.UUID(…).bytes)")
            continue
        room = _U64 if name in {"request_id", "guest_id"} else _I32
        if not isinstance(value, int) or value not in room:
            return MisuseError(f"{name} is {shorten(value)}: it takes a whole number {room[0]}..{room[-1]}")
    if not isinstance(data, bytes):
        return MisuseError(f"data is {shorten(data)}: it takes bytes; encode_text() makes them of a str")
    return MisuseError(f"data of {len(data)} bytes: a frame carries at most {DATA_SIZE}, padding included")


@frozen
class Refusal:
    """Why a header is implausible: the field, its value and the rule."""

    field: str
    value: int
    rule: str

    def __str__(self) -> str:
        return f"{self.field} is {self.value}: {self.rule}"


def refusal(header: bytes, *, convincing: bool) -> Refusal | None:
    """Return the first reason to reject a header of 64 bytes, or None.

    A header is *acceptable* if exactly one of its flags is set, flags are 0 or 1, and lengths are 0..4032. It is
    `convincing` if it also has a small sub-command and a reserved field of 0, which no frame has that is read 4 or 8
    bytes out of step.
    """
    is_request, is_response, needs, request_length, response_length, _, sub_command, reserved = CHECKED.unpack_from(
        header, FLAGS_OFFSET
    )
    for name, value in ("is_request", is_request), ("is_response", is_response), ("needs_response", needs):
        if value not in (0, 1):
            return Refusal(name, value, "a flag is 0 or 1")
    if is_request == is_response:
        return Refusal("is_response", is_response, f"exactly one of is_request ({is_request}) and is_response is 1")
    for name, value in ("request_length", request_length), ("response_length", response_length):
        if not 0 <= value <= DATA_SIZE:
            return Refusal(name, value, f"a length is 0..{DATA_SIZE}")
    if convincing and not 0 < sub_command <= SUB_COMMAND_LIMIT:
        return Refusal("sub_command", sub_command, f"only 1..{SUB_COMMAND_LIMIT} convinces that a frame begins here")
    if convincing and reserved != 0:
        return Refusal("reserved", reserved, "only 0 convinces that a frame begins here")
    return None


# The same rule for a search. Each expression starts with a constant run of bytes, which `re` finds at memchr's speed. A
# single expression with both flags as alternatives has no such run, and is ten times slower.
_LENGTH = rb"(?:.[\x00-\x0e]|[\x00-\xc0]\x0f)\0\0"
_NEEDS = rb"[\0\x01]\0\0\0"
_REST = _NEEDS + _LENGTH * 2 + rb".{4}[\x01-\xff]\0\0\0\0\0\0\0"
_CONVINCING = (
    (FLAGS_OFFSET, re.compile(rb"(?s)\x01\0\0\0\0\0\0\0" + _REST)),
    (FLAGS_OFFSET, re.compile(rb"(?s)\0\0\0\0\x01\0\0\0" + _REST)),
)

# These start at the upper half of the guest id.
_NONE = rb"\0\0\0\0"
_END = rb".{4}\x01\0\0\0\0\0\0\0"
_USUAL = (
    (FLAGS_OFFSET - 4, re.compile(rb"(?s)\0\0\0\0\x01\0\0\0\0\0\0\0" + _NEEDS + _LENGTH + _NONE + _END)),
    (FLAGS_OFFSET - 4, re.compile(rb"(?s)\0\0\0\0\0\0\0\0\x01\0\0\0" + _NEEDS + _NONE + _LENGTH + _END)),
)


def find_header(buffer: bytes, start: int, end: int, *, usual: bool = False) -> int:
    """Return the first offset in ``start..end - 1`` of a complete convincing header, or -1.

    With `usual`, find only a header like all known ones: `sub_command` 1, `guest_id` below 2**32, and 0 as the length
    of the other direction. A frame with an odd `reserved` has no usual header at any other offset, but a convincing one
    4 bytes late.
    """
    last = end - 1 + HEADER_SIZE
    found = -1
    for offset, pattern in _USUAL if usual else _CONVINCING:
        if match := pattern.search(buffer, start + offset, last):
            found = match.start() - offset
            last = found + HEADER_SIZE - 1
    return found
