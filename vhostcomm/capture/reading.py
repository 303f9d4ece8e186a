"""Read captures: lines of JSON → records. Each line gives a record, or an error with its line number."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from vchannel import FRAME_SIZE, HEADER_FIELDS, Frame, SkipReason
from vchannel.errors import shorten
from vhostcomm.capture.format import (
    ASSUMABLE,
    FORMAT_KEY,
    FORMAT_VERSION,
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    Record,
    SkippedRecord,
)
from vhostcomm.errors import CaptureError

_SKIPPED_LIMIT: Final = FRAME_SIZE
"""Maximum bytes of one skipped record: a connection reports at most that many at once."""

_REMEDY: Final = (
    f'a capture begins with a line {{"{FORMAT_KEY}": {FORMAT_VERSION}, …}}: give a file that serve --record wrote'
)

_REQUEST_ID: Final = re.compile("0x[0-9a-fA-F]{1,16}")
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX: Final = re.compile("([0-9a-fA-F]{2})*")


def read_capture(lines: Iterable[str], path: str = "capture") -> Capture:
    """Read a capture from its lines.

    Args:
        lines: with their newlines. A last line without its newline may be cut off. A byte order mark before the
            first line is ignored.
        path: the capture's file, for errors.

    Raises:
        CaptureError: a line is invalid; with its number.
    """
    header: CaptureHeader | None = None
    records: list[Record] = []
    rows = iter(lines)
    for number, row in enumerate(rows, 1):
        try:
            value = _read_line(row.removeprefix("\ufeff") if number == 1 else row)
            if header is None:
                header = _read_header(value)
            else:
                records.append(_read_record(value))
        except _CutOffError as error:
            if header is None:
                raise CaptureError(path, number, f"not a capture: {error}; {_REMEDY}") from None
            if next(rows, None) is not None:
                raise CaptureError(path, number, str(error)) from None
            if row.endswith("\n"):
                what = f"{error}; it is the last line: if the rest of it is lost, delete it, and the others can be read"
                raise CaptureError(path, number, what) from None
            return Capture(header, tuple(records), row)
        except KeyError as error:
            raise CaptureError(path, number, f"{error.args[0]!r} is missing") from None
        except (ValueError, RecursionError) as error:  # RecursionError: from showing a deeply nested value
            raise CaptureError(path, number, str(error)) from None
    if header is None:
        raise CaptureError(path, 1, f"empty; {_REMEDY}")
    return Capture(header, tuple(records))


class _CutOffError(ValueError):
    """The line is not a complete JSON document."""


def _read_line(row: str) -> dict[str, Any]:
    try:
        value = json.loads(row, object_pairs_hook=_distinct)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _CutOffError(f"not a line of JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected one JSON object, found {shorten(row.strip(), 40)}")  # noqa: TRY004
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{shorten(twice)} is given twice")
    return value


def _read_header(value: dict[str, Any]) -> CaptureHeader:
    if FORMAT_KEY not in value:
        raise ValueError(f'not a capture: its first line has no "{FORMAT_KEY}"; {_REMEDY}')
    version = _take(value, FORMAT_KEY, int)
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {shorten(version)}; this program reads {FORMAT_VERSION}: use a newer one")
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
    time = _read_time(value)
    direction = Direction(_take(value, "dir", str))
    record = (_read_skipped if "skipped" in value else _read_frame)(value, time, direction)
    _nothing_left(value)
    return record


def _read_time(value: dict[str, Any]) -> float:
    given = _take(value, "t", int, float)
    try:
        time = float(given)
    except OverflowError:
        time = math.inf
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"t is {shorten(given)}, not seconds since the start")
    return time


def _read_skipped(value: dict[str, Any], time: float, direction: Direction) -> SkippedRecord:
    why = SkipReason(_take(value, "skipped", str))
    size, seen = _take(value, "size", int), _take_hex(value, "hex")
    if not max(len(seen), 1) <= size <= _SKIPPED_LIMIT:
        raise ValueError(
            f"size is {shorten(size)}: it counts the bytes of hex ({len(seen)}) and the zeros behind them, "
            f"at most {_SKIPPED_LIMIT}"
        )
    return SkippedRecord(time, direction, seen.ljust(size, b"\0"), why)


def _read_frame(value: dict[str, Any], time: float, direction: Direction) -> FrameRecord:
    if "name" in value:
        _take(value, "name", str)  # for people; the number of the command counts
    header: dict[str, Any] = {
        "request_id": int(_take_like(value, "request_id", _REQUEST_ID, "0x and up to 16 hexadecimal digits"), 16),
        "guest_uuid": uuid.UUID(_take_like(value, "guest_uuid", _UUID, "a UUID with its dashes")).bytes,
    }
    header |= {field: _take(value, field, int) for field in HEADER_FIELDS if field not in header}
    data = _read_data(value)
    padding = _take_hex(value, "padding_hex") if "padding_hex" in value else b""
    refused = _take(value, "refused", str) if "refused" in value else ""
    assumed = _read_assumed(value) if "assumed" in value else ()
    frame = Frame(**header, data=data, padding=padding)
    again = Frame.decode(frame.encode())
    if again.data != data:
        raise ValueError(f"{len(data)} bytes of data, but the length fields say {len(again.data)}")
    return FrameRecord(time, direction, again, refused, assumed)


def _read_data(value: dict[str, Any]) -> bytes:
    forms: dict[str, Callable[[], bytes]] = {
        "text": lambda: str.encode(_take(value, "text", str)) + b"\0",
        "text_without_nul": lambda: str.encode(_take(value, "text_without_nul", str)),
        "data_hex": lambda: _take_hex(value, "data_hex"),
    }
    found = [key for key in forms if key in value]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)}: data is given once")
    return forms[found[0]]() if found else b""


def _read_assumed(value: dict[str, Any]) -> tuple[str, ...]:
    names = _take(value, "assumed", list)
    for name in names:
        if not isinstance(name, str) or name not in ASSUMABLE:
            raise ValueError(f"assumed names {shorten(name)}: neither a header field nor data")
    return tuple(names)


def _take(value: dict[str, Any], key: str, *kinds: type) -> Any:
    found = value.pop(key)
    if type(found) not in kinds:
        raise ValueError(f"{key} is {shorten(found, 60)}, not {' or '.join(kind.__name__ for kind in kinds)}")
    return found


def _take_like(value: dict[str, Any], key: str, form: re.Pattern[str], what: str) -> str:
    found: str = _take(value, key, str)
    if not form.fullmatch(found):
        raise ValueError(f"{key} is {shorten(found, 60)}, not {what}")
    return found


def _take_hex(value: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(_take_like(value, key, _HEX, "pairs of hexadecimal digits"))


def _nothing_left(value: dict[str, Any]) -> None:
    if value:
        raise ValueError(f"unknown: {', '.join(map(shorten, value))}")
