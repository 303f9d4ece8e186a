"""What stays of a guest's text: integers, the shape of JSON, and the members of it that the protocol knows."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from vchannel import DATA_SIZE, PayloadError, decode_integer
from vhostcomm.capture.format import text_of
from vhostcomm.capture.redact_text import Redactor, compact, mask


def guest_data(data: bytes, is_integer: bool, redactor: Redactor, room: int = DATA_SIZE) -> bytes:
    """Data of a guest's frame, masked but for what the protocol needs.

    A JSON object or array keeps its shape: unknown names of members and all strings become `x` in their length (a name
    that is there already gets longer), numbers 0. Members that the protocol knows keep their redacted values. Other
    text becomes `x` for each byte.

    Args:
        data: of a frame.
        is_integer: whether the protocol has an integer there; one that is spelt as such stays.
        redactor: for the values that stay.
        room: bytes that the result may have; what would be longer is masked whole.
    """
    text = text_of(data)
    if text is None or (is_integer and _is_integer(data)):
        return redactor.data(data, room=room)
    if text.lstrip()[:1] not in {"{", "["}:
        return mask(data)
    try:
        kept = compact(_shape(json.loads(text), _INFORMATION, redactor)).encode()
    except (ValueError, RecursionError):
        return mask(data)
    kept += b"\0" if data.endswith(b"\0") else b""
    return kept if len(kept) <= room else mask(data)


def _is_integer(data: bytes) -> bool:
    try:
        decode_integer(data)
    except PayloadError:
        return False
    return True


def _is_address(value: str) -> bool:
    try:
        return bool(ipaddress.ip_address(value)) and "%" not in value
    except ValueError:
        return False


def _is_port(value: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", value) is not None


def _is_interface(value: str) -> bool:
    """Whether it is a name that the kernel gives: others may name their owner."""
    return re.fullmatch("eth[0-9]{1,2}", value) is not None


_Known = Mapping[str, Any] | Callable[[str], bool] | None
"""What is known of a value: its members (of an array, those of each element), or which values may stay."""

_INFORMATION: Final[_Known] = {
    "data": {
        "dsm_setting": {"data": {"http_port": _is_port}},
        "ip": {"data": {"name": _is_interface, "ip": _is_address}},
    }
}
"""As `vchannel.GuestInformation` reads it, and nothing else is known of any guest's JSON."""


def _shape(value: Any, known: _Known, redactor: Redactor) -> Any:
    match value:
        case dict():
            members = known if isinstance(known, Mapping) else {}
            kept: dict[str, Any] = {name: None for name in value if name in members}  # no mask takes their names
            lengths: set[int] = set()
            shaped: dict[str, Any] = {}
            for name, each in value.items():
                shaped[name if name in kept else _masked_name(name, lengths)] = _shape(
                    each, members.get(name), redactor
                )
            return shaped
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
    length = len(name)
    while length in lengths:
        length += 1
    lengths.add(length)
    return "x" * length
