"""What the data of a frame is: text, an integer or JSON. The sources are in ``protocol/README.md``."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from vchannel.commands import Kind
from vchannel.errors import MisuseError, PayloadError, shorten
from vchannel.frame import DATA_SIZE

TEXT_SIZE: Final = DATA_SIZE - 1
"""The most bytes of text a frame carries: its closing NUL needs one."""

NEVER: Final = (1 << 63) - 1
"""The update deadline that never comes, as the deployed tools send it: the largest signed 64-bit number."""


MAX_DEPTH: Final = 64
"""The deepest nesting of a guest's JSON: known payloads need six levels. Python's own limit differs between its versions."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def encode_text(text: str) -> bytes:
    """Text as data: UTF-8 and the closing NUL that the frame's length counts.

    Raises:
        MisuseError: longer than 4031 bytes, with a NUL inside, or no text that UTF-8 can write.
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
    """Data as text, up to its NUL; a missing NUL is forgiven, bytes that aren't UTF-8 become escapes."""
    return data.partition(b"\0")[0].decode(errors="backslashreplace")


def encode_integer(value: int) -> bytes:
    """An integer as data: its decimal text.

    Raises:
        MisuseError: not an integer of 64 bits with its sign.
    """
    if type(value) is not int or not -NEVER - 1 <= value <= NEVER:
        raise MisuseError(f"{shorten(value)} is no signed 64-bit integer")
    return encode_text(str(value))


def decode_integer(data: bytes) -> int:
    """Data as an integer.

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
    """A value as JSON data, without spaces as every known payload has it.

    Raises:
        MisuseError: JSON can't write it, or it is too long.
    """
    try:
        return encode_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise MisuseError(f"JSON can't write {shorten(value)}: {error}") from None
    except ValueError as error:
        raise MisuseError(str(error)) from None


def decode_json(data: bytes) -> Any:
    """Data as JSON.

    Raises:
        PayloadError: it isn't JSON, is nested too deep to be any guest's honest answer, or holds what can't be
            written again: infinite numbers, halves of UTF-16 pairs.
    """
    text = decode_text(data)
    if _depth(text) > MAX_DEPTH:
        raise PayloadError("data", text, "JSON nested too deep")
    try:
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        if "\\u" in text:  # only an escape can make half of a pair
            json.dumps(value, ensure_ascii=False).encode()
    except PayloadError:
        raise
    except UnicodeEncodeError:
        raise PayloadError("data", text, "JSON with half of a UTF-16 pair") from None
    except ValueError as error:
        raise PayloadError("data", text, f"not JSON ({error})") from None
    return value


def _depth(text: str) -> int:
    """How deep brackets are nested, outside strings."""
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
"""What is wrong with data that may be right: whether a genuine guest counts its NUL is unknown."""


def data_problem(kind: Kind, data: bytes) -> PayloadError | None:
    """What is wrong with data that should be of a kind; None where nothing is, or nothing is known.

    No data is never wrong: it is the answer of someone who doesn't know. Nor is data where none is known to belong.
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
