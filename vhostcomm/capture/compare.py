"""Two captures told apart."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from attrs import frozen

from vchannel import HEADER_FIELDS
from vchannel.errors import shorten
from vhostcomm.capture.format import Capture, FrameRecord, Record, SkippedRecord, command_name

_FIRST_RECORD_LINE: Final = 2
_COMPARED: Final = (*HEADER_FIELDS, "data", "padding")


@frozen
class Difference:
    """One difference. Lines are the captures' own, from 1; None where that capture has no such record."""

    line_a: int | None
    line_b: int | None
    what: str

    def __str__(self) -> str:
        place = f"{self.line_a or '-'} | {self.line_b or '-'}"
        return f"{place:>9}  {self.what}"


def compare(a: Capture, b: Capture, *, request_ids: bool = False) -> list[Difference]:
    """What differs between two captures: records that only one has, and fields of those both have.

    Times are not compared. Request ids are random: unless `request_ids`, only which records share
    one is compared.
    """
    keys_a, keys_b = ([_key(record) for record in capture.records] for capture in (a, b))
    known_a: dict[int, int] = {}
    known_b: dict[int, int] = {}
    found = []
    for tag, a1, a2, b1, b2 in SequenceMatcher(None, keys_a, keys_b, autojunk=False).get_opcodes():
        # Where a run was replaced by another, the records still pair off as far as they go.
        common = min(a2 - a1, b2 - b1) if tag in {"equal", "replace"} else 0
        for step in range(common):
            record_a, record_b = a.records[a1 + step], b.records[b1 + step]
            where = (a1 + step + _FIRST_RECORD_LINE, b1 + step + _FIRST_RECORD_LINE)
            found += [Difference(*where, what) for what in _fields(record_a, record_b, request_ids, known_a, known_b)]
        found += [
            Difference(place + _FIRST_RECORD_LINE, None, f"only in the first: {describe(a.records[place])}")
            for place in range(a1 + common, a2)
        ]
        found += [
            Difference(None, place + _FIRST_RECORD_LINE, f"only in the second: {describe(b.records[place])}")
            for place in range(b1 + common, b2)
        ]
    return found


def describe(record: Record) -> str:
    """A record in a few words."""
    if isinstance(record, SkippedRecord):
        return f"{record.direction.value} {len(record.raw)} bytes skipped ({record.why.value})"
    kind = "request" if record.frame.is_request else "response"
    name = command_name(record) or f"command {record.frame.command}"
    return f"{record.direction.value} {kind} {name} {shorten(record.frame.data)}"


def _key(record: Record) -> tuple[object, ...]:
    if isinstance(record, SkippedRecord):
        return (record.direction, record.why)
    return (record.direction, record.frame.is_request, record.frame.command)


def _fields(a: Record, b: Record, request_ids: bool, known_a: dict[int, int], known_b: dict[int, int]) -> Iterator[str]:
    if not (isinstance(a, FrameRecord) and isinstance(b, FrameRecord)):
        if type(a) is not type(b) or a.raw != b.raw or a.direction is not b.direction:
            yield f"{describe(a)} | {describe(b)}"
        return
    if a.direction is not b.direction:
        yield f"direction: {a.direction.value} | {b.direction.value}"
    for field in _COMPARED:
        value_a, value_b = getattr(a.frame, field), getattr(b.frame, field)
        if field == "request_id" and not request_ids:
            # The same if both are new, or both were first seen in records that paired.
            order_a = known_a.setdefault(value_a, len(known_a))
            order_b = known_b.setdefault(value_b, len(known_b))
            same = order_a == order_b
        else:
            same = value_a == value_b
        if not same:
            name = command_name(a) or f"command {a.frame.command}"
            yield f"{name} {field}: {shorten(value_a)} | {shorten(value_b)}"
