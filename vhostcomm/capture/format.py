"""The file: records ↔ lines of JSON, described in ``captures/README.md``."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import Enum
from typing import Any, Final

from attrs import frozen

from vchannel import (
    HEADER_FIELDS,
    Frame,
    GuestCommand,
    HostCommand,
    SkipReason,
)
from vhostcomm.errors import CaptureError

FORMAT_VERSION: Final = 1
FORMAT_KEY: Final = "vchannel_capture"

_SKIPPED_LIMIT: Final = 1 << 20
"""Bytes in one skipped record; a recorder makes them of 4096 at most."""


class Direction(Enum):
    """Which way bytes went."""

    TO_HOST = "guest>host"
    TO_GUEST = "host>guest"


class Origin(Enum):
    """Whether somebody's bytes were recorded, or a capture was made from what is known otherwise."""

    RECORDED = "recorded"
    RECONSTRUCTED = "reconstructed"


@frozen
class CaptureHeader:
    """A capture's first line.

    Args:
        when: the time of second 0, with its offset from UTC.
        producer: the program, with its version.
        origin: recorded or reconstructed.
        provenance: a sentence: recorded from what, or reconstructed from what.
        redacted: whether identities were replaced by placeholders.
    """

    when: datetime
    producer: str
    origin: Origin
    provenance: str
    redacted: bool = False


@frozen
class FrameRecord:
    """A frame that went over the channel.

    Args:
        time: seconds since the capture's start.
        direction: which way.
        frame: its fields.
        refused: why its header was not believed; empty for a good frame.
        assumed: names of fields nobody saw, in a reconstructed capture.
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
    """Bytes that went over the channel in no frame, and why they are taken for that."""

    time: float
    direction: Direction
    raw: bytes
    why: SkipReason


Record = FrameRecord | SkippedRecord


@frozen
class Capture:
    """A whole capture. `cut_off` is the text of a last line that a crash left unfinished."""

    header: CaptureHeader
    records: tuple[Record, ...]
    cut_off: str = ""


def command_name(record: FrameRecord) -> str:
    """The name of a frame's command in the namespace of whoever asked, or ""."""
    asked_by_guest = (record.direction is Direction.TO_HOST) == (record.frame.is_request == 1)
    return (_HOST_NAMES if asked_by_guest else _GUEST_NAMES).get(record.frame.command, "")


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
    line["request_id"] = f"{frame.request_id:#018x}"  # a number this large loses digits in jq and JavaScript
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
    """Data as text where it is text: `text` ends in a NUL that isn't shown, `text_without_nul` doesn't."""
    if not data:
        return {}
    body, key = (data[:-1], "text") if data.endswith(b"\0") else (data, "text_without_nul")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"data_hex": data.hex()}
    is_text = all(letter.isprintable() or letter in "\t\r\n" for letter in text)
    return {key: text} if is_text else {"data_hex": data.hex()}


def _line(value: dict[str, Any]) -> str:
    # ASCII only: a guest's text can't play tricks in a terminal, and nothing is lost.
    return json.dumps(value, ensure_ascii=True) + "\n"


# -- reading


def read_capture(lines: Iterable[str], path: str = "capture") -> Capture:
    """Read a capture from its lines.

    Args:
        lines: with or without their newlines; the last may be cut off.
        path: where they come from, for errors.

    Raises:
        CaptureError: a line is not what it should be; with its number.
    """
    header: CaptureHeader | None = None
    records: list[Record] = []
    number = 0
    rows = iter(lines)
    row = next(rows, None)
    while row is not None:
        number += 1
        following = next(rows, None)
        try:
            value = _read_line(row)
            if header is None:
                header = _read_header(value)
            else:
                records.append(_read_record(value))
        except _CutOffError as error:
            if following is not None or header is None:
                raise CaptureError(path, number, str(error)) from None
            return Capture(header, tuple(records), row)
        except (ValueError, KeyError, TypeError) as error:
            raise CaptureError(path, number, _explain(error)) from None
        row = following
    if header is None:
        raise CaptureError(path, 1, f'empty; a capture begins with a line {{"{FORMAT_KEY}": {FORMAT_VERSION}, …}}')
    return Capture(header, tuple(records))


class _CutOffError(ValueError):
    """A line that is not a whole JSON document."""


def _read_line(row: str) -> dict[str, Any]:
    try:
        value = json.loads(row)
    except (ValueError, RecursionError) as error:
        raise _CutOffError(f"not a line of JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"a line is one JSON object, this is {row.strip()[:40]}")  # noqa: TRY004
    return value


def _explain(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _read_header(value: dict[str, Any]) -> CaptureHeader:
    version = value.pop(FORMAT_KEY, None)
    if version is None:
        raise ValueError(f'not a capture: its first line has no "{FORMAT_KEY}"')
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version!r}; this program reads {FORMAT_VERSION}: use a newer one")
    when = datetime.fromisoformat(_take(value, "when", str))
    if when.tzinfo is None:
        raise ValueError(f"when is {when.isoformat()}: it needs its offset from UTC, such as Z or +02:00")
    header = CaptureHeader(
        when,
        _take(value, "producer", str),
        Origin(_take(value, "origin", str)),
        _take(value, "provenance", str),
        _take(value, "redacted", bool),
    )
    _nothing_left(value)
    return header


def _read_record(value: dict[str, Any]) -> Record:
    time = float(_take(value, "t", int, float))
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"t is {time}, not seconds since the start")
    direction = Direction(_take(value, "dir", str))
    if "skipped" in value:
        why = SkipReason(_take(value, "skipped", str))
        size, seen = _take(value, "size", int), bytes.fromhex(_take(value, "hex", str))
        if not len(seen) <= size <= _SKIPPED_LIMIT:
            raise ValueError(f"size is {size}: it counts the bytes of hex ({len(seen)}) and the zeros behind them")
        _nothing_left(value)
        return SkippedRecord(time, direction, seen.ljust(size, b"\0"), why)
    value.pop("name", None)  # for the reader's eye: the command counts
    value["request_id"] = int(_take(value, "request_id", str), 16)
    value["guest_uuid"] = uuid.UUID(_take(value, "guest_uuid", str)).bytes
    header = {field: _take(value, field, bytes if field == "guest_uuid" else int) for field in HEADER_FIELDS}
    data = _read_data(value)
    padding = bytes.fromhex(_take(value, "padding_hex", str)) if "padding_hex" in value else b""
    refused = _take(value, "refused", str) if "refused" in value else ""
    assumed = tuple(_take(value, "assumed", list)) if "assumed" in value else ()
    _nothing_left(value)
    frame = Frame(**header, data=data, padding=padding)
    again = Frame.decode(frame.encode())
    if again.data != data:
        raise ValueError(f"{len(data)} bytes of data, and the length fields say {len(again.data)}")
    return FrameRecord(time, direction, again, refused, assumed)


def _read_data(value: dict[str, Any]) -> bytes:
    forms: dict[str, Callable[[str], bytes]] = {
        "text": lambda text: text.encode() + b"\0",
        "text_without_nul": str.encode,
        "data_hex": bytes.fromhex,
    }
    found = [key for key in forms if key in value]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)}: data is given once")
    return forms[found[0]](_take(value, found[0], str)) if found else b""


def _take(value: dict[str, Any], key: str, *kinds: type) -> Any:
    found = value.pop(key)
    if type(found) not in kinds:
        raise ValueError(f"{key} is {found!r:.60}, not {' or '.join(kind.__name__ for kind in kinds)}")
    return found


def _nothing_left(value: dict[str, Any]) -> None:
    if value:
        raise ValueError(f"unknown: {', '.join(map(repr, value))}")
