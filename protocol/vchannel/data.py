"""The types of a frame's data: text, integers and JSON. ``protocol/README.md`` has the sources."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from vchannel.commands import Kind
from vchannel.errors import MisuseError, PayloadError, shorten
from vchannel.frame import DATA_SIZE

TEXT_SIZE: Final = DATA_SIZE - 1
"""Maximum bytes of text in a frame, without its closing NUL."""

NEVER: Final = (1 << 63) - 1
"""The update deadline that never comes, as deployed tools send it: the largest signed 64-bit number."""


MAX_DEPTH: Final = 64
"""Maximum nesting of a guest's JSON; known payloads need six levels. Python's own limit depends on its version."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def encode_text(text: str) -> bytes:
    """Encode text as data: UTF-8 and a closing NUL, which the frame's length includes.

    Raises:
        MisuseError: longer than 4031 bytes, with a NUL inside, or impossible in UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise MisuseError(f"text that isn't Unicode ({shorten(text)}): {error.reason}") from None
    if len(data) > TEXT_SIZE:
        raise MisuseError(f"text of {len(data)} bytes: a frame carries at most {TEXT_SIZE}, and they aren't split")
    if b"\0" in data:
        raise MisuseError(f"text with a NUL inside ({shorten(text)}): the NUL closes it; send such data as bytes")
    return data + b"\0"


def decode_text(data: bytes) -> str:
    """Decode data as text up to its NUL. The NUL may be missing, and invalid UTF-8 becomes escapes."""
    return data.partition(b"\0")[0].decode(errors="backslashreplace")


def encode_integer(value: int) -> bytes:
    """Encode an integer as data: decimal text.

    Raises:
        MisuseError: not an integer of 64 bits with its sign.
    """
    if type(value) is not int or not -NEVER - 1 <= value <= NEVER:
        raise MisuseError(f"{shorten(value)} is not a signed 64-bit integer")
    return encode_text(str(value))


def decode_integer(data: bytes) -> int:
    """Decode data as an integer.

    Raises:
        PayloadError: it isn't decimal text of a signed 64-bit number.
    """
    text = decode_text(data).strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(NEVER))):
        raise PayloadError("data", text, "not a decimal number")
    value = int(text)
    if not -NEVER - 1 <= value <= NEVER:
        raise PayloadError("data", text, "more than 64 bits")
    return value


def encode_json(value: object) -> bytes:
    """Encode a value as JSON data, without spaces, as in all known payloads.

    Raises:
        MisuseError: JSON can't represent the value, or it is too long.
    """
    try:
        return encode_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise MisuseError(f"JSON can't write {shorten(value)}: {error}") from None
    except ValueError as error:
        raise MisuseError(str(error)) from None


def decode_json(data: bytes) -> Any:
    """Decode data as JSON.

    Raises:
        PayloadError: it is invalid, nested too deeply for any known answer, or contains what can't be encoded again:
            infinite numbers, half of a surrogate pair.
    """
    text = decode_text(data)
    if _depth(text) > MAX_DEPTH:
        raise PayloadError("data", text, "JSON nested too deep")
    try:
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        if "\\u" in text:  # only an escape can make half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except PayloadError:
        raise
    except UnicodeEncodeError:
        raise PayloadError("data", text, "JSON with half of a UTF-16 pair") from None
    except ValueError as error:
        raise PayloadError("data", text, f"not JSON ({error})") from None
    return value


def _depth(text: str) -> int:
    """Return how deeply brackets are nested, outside strings."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_number(name: str) -> float:
    raise PayloadError("data", name, "not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


NO_NUL: Final = "text without its closing NUL"
"""The problem of data that may be valid: it is unknown whether a genuine guest's length includes the NUL."""


def data_problem(kind: Kind, data: bytes) -> PayloadError | None:
    """Return what is wrong with data of a type; None if nothing is, or nothing is known.

    Empty data is always valid: it means that the sender doesn't know. So is data where the protocol defines none.
    """
    if not data or kind in (Kind.UNKNOWN, Kind.EMPTY):
        return None
    text = data[:-1]
    if data[-1]:
        return PayloadError("data", data[-16:], NO_NUL)
    if b"\0" in text:
        return PayloadError("data", data, "text with a NUL inside")
    try:
        text.decode()
        if kind is Kind.INTEGER:
            decode_integer(data)
        elif kind is Kind.JSON:
            decode_json(data)
    except UnicodeDecodeError as error:
        return PayloadError("data", data[error.start : error.start + 16], f"not UTF-8 at byte {error.start}")
    except PayloadError as error:
        return error
    return None
