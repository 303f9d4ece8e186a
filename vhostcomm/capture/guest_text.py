"""Mask a guest's text, except integers, the shape of JSON and the members of JSON that the protocol defines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from vchannel import PayloadError, decode_integer
from vchannel.messages import is_address
from vhostcomm.capture.format import text_of
from vhostcomm.capture.redact_text import Redactor, compact, mask


def guest_data(data: bytes, is_integer: bool, redactor: Redactor) -> bytes:
    """Mask the data of a guest's frame, except what the protocol needs.

    A JSON object or array keeps its shape. Strings and unknown member names become `x` of the same length, numbers
    become 0. A masked name is lengthened if another one has its length. Members that the protocol defines keep
    their redacted values. Other text becomes `x` for each byte. The result may be longer than the data.

    Args:
        is_integer: whether the protocol has an integer there; a valid one stays.
    """
    text = text_of(data)
    if text is None or (is_integer and _is_integer(data)):
        return redactor.data(data)
    if text.lstrip()[:1] not in {"{", "["}:
        return mask(data)
    try:
        kept = compact(_shape(json.loads(text), _INFORMATION, redactor)).encode()
    except (ValueError, RecursionError):
        return mask(data)
    return kept + (b"\0" if data.endswith(b"\0") else b"")


def _is_integer(data: bytes) -> bool:
    try:
        decode_integer(data)
    except PayloadError:
        return False
    return True


def _is_address(value: str) -> bool:
    return "%" not in value and is_address(value)


_is_port: Final = re.compile("[0-9]{1,5}").fullmatch
_is_interface: Final = re.compile("eth[0-9]{1,2}").fullmatch
"""Only names that the kernel assigns; a name of the user's choice may identify its owner."""

_Known = Mapping[str, Any] | Callable[[str], object] | None
"""The known members of an object or of an array's elements, or a test of which values may stay."""

_INFORMATION: Final[_Known] = {
    "data": {
        "dsm_setting": {"data": {"http_port": _is_port}},
        "ip": {"data": {"name": _is_interface, "ip": _is_address}},
    }
}
"""The members that `vchannel.GuestInformation` reads. No other JSON of a guest is known."""


def _shape(value: Any, known: _Known, redactor: Redactor) -> Any:
    match value:
        case dict():
            members = known if isinstance(known, Mapping) else {}
            lengths: set[int] = set()
            return {  # no member's name is all x
                name if name in members else _masked_name(name, lengths): _shape(each, members.get(name), redactor)
                for name, each in value.items()
            }
        case list():
            return [_shape(each, known if isinstance(known, Mapping) else None, redactor) for each in value]
        case bool() | None:
            return value
        case str():
            if callable(known) and known(value):
                return redactor.text(value)
            return "x" * len(value)
        case _:
            return value if callable(known) and known(str(value)) else 0


def _masked_name(name: str, lengths: set[int]) -> str:
    length = next(size for size in count(len(name)) if size not in lengths)
    lengths.add(length)
    return "x" * length
