"""The contents of a capture, and the writer: records → lines of JSON, described in ``captures/README.md``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Any, Final

from attrs import frozen

from vchannel import HEADER_FIELDS, Frame, GuestCommand, HostCommand, SkipReason

FORMAT_VERSION: Final = 1
FORMAT_KEY: Final = "vchannel_capture"

ASSUMABLE: Final = frozenset({*HEADER_FIELDS, "data"})
"""The names that `FrameRecord.assumed` may have."""


class Direction(Enum):
    """Which way bytes went."""

    TO_HOST = "guest>host"
    TO_GUEST = "host>guest"


class Origin(Enum):
    """Whether a capture was recorded on a channel, or reconstructed from other evidence."""

    RECORDED = "recorded"
    RECONSTRUCTED = "reconstructed"


@frozen
class CaptureHeader:
    """The first line of a capture.

    Args:
        when: the time of second 0, with its offset from UTC.
        producer: the program and its version.
        origin: recorded or reconstructed.
        provenance: one sentence: the recorded system, or the evidence of a reconstruction.
        redacted: whether placeholders replace the identities.
    """

    when: datetime
    producer: str
    origin: Origin
    provenance: str
    redacted: bool = False


@frozen
class FrameRecord:
    """A frame on the channel.

    Args:
        time: seconds since the start of the capture.
        direction: to the host or to the guest.
        frame: its fields.
        refused: why the codec refused its header; empty for a valid frame.
        assumed: in a reconstruction, the fields without evidence.
    """

    time: float
    direction: Direction
    frame: Frame
    refused: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def raw(self) -> bytes:
        return self.frame.encode()


@frozen
class SkippedRecord:
    """Bytes on the channel outside any frame, with the reason for skipping them."""

    time: float
    direction: Direction
    raw: bytes
    why: SkipReason


Record = FrameRecord | SkippedRecord


@frozen
class Capture:
    """A whole capture. `cut_off` is the text of an incomplete last line, such as a crash leaves."""

    header: CaptureHeader
    records: tuple[Record, ...]
    cut_off: str = ""


def command_name(record: FrameRecord) -> str:
    """Return the name of a frame's command, or "". The namespace depends on which side asks."""
    return (_HOST_NAMES if asked_by_guest(record) else _GUEST_NAMES).get(record.frame.command, "")


def asked_by_guest(record: FrameRecord) -> bool:
    """Return whether the guest asked: the frame is a guest's request, or the host's answer to one."""
    return (record.direction is Direction.TO_HOST) == (record.frame.is_request == 1)


_HOST_NAMES: Final = {member.value: member.name for member in HostCommand}
_GUEST_NAMES: Final = {member.value: member.name for member in GuestCommand}


# -- writing


def format_header(header: CaptureHeader) -> str:
    """The first line, with its newline."""
    return _line(
        {
            FORMAT_KEY: FORMAT_VERSION,
            "when": header.when.isoformat(),
            "producer": header.producer,
            "origin": header.origin.value,
            "provenance": header.provenance,
            "redacted": header.redacted,
        }
    )


def format_record(record: Record) -> str:
    """One record's line, with its newline."""
    line: dict[str, Any] = {"t": round(float(record.time), 6), "dir": record.direction.value}
    if isinstance(record, SkippedRecord):
        seen = record.raw.rstrip(b"\0")
        return _line(line | {"skipped": record.why.value, "size": len(record.raw), "hex": seen.hex()})
    frame = record.frame
    if name := command_name(record):
        line["name"] = name
    for field in HEADER_FIELDS:
        line[field] = getattr(frame, field)
    line["request_id"] = f"{frame.request_id:#018x}"  # as text, since jq and JavaScript round numbers this large
    line["guest_uuid"] = str(uuid.UUID(bytes=frame.guest_uuid))
    line |= _format_data(frame.data)
    if frame.padding:
        line["padding_hex"] = frame.padding.hex()
    if record.refused:
        line["refused"] = record.refused
    if record.assumed:
        line["assumed"] = list(record.assumed)
    return _line(line)


def format_capture(capture: Capture) -> Iterator[str]:
    """Every line of a capture, each with its newline."""
    yield format_header(capture.header)
    yield from map(format_record, capture.records)


def _format_data(data: bytes) -> dict[str, str]:
    """Format data as text if it is text: `text` omits the closing NUL, `text_without_nul` has none."""
    if not data:
        return {}
    text = text_of(data)
    if text is None:
        return {"data_hex": data.hex()}
    return {"text" if data.endswith(b"\0") else "text_without_nul": text}


def text_of(data: bytes) -> str | None:
    """Return data without its closing NUL if it is printable text, else None."""
    try:
        text = data.removesuffix(b"\0").decode()
    except UnicodeDecodeError:
        return None
    return text if all(letter.isprintable() or letter in "\t\r\n" for letter in text) else None


def _line(value: dict[str, Any]) -> str:
    # ASCII only: a guest's text must not control a terminal. The escapes lose nothing.
    return json.dumps(value, ensure_ascii=True) + "\n"
