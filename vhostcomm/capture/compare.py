"""Compare two captures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import count, zip_longest
from typing import Final

from attrs import field, frozen

from vchannel import HEADER_FIELDS
from vhostcomm.capture.format import Capture, FrameRecord, Record, SkippedRecord, command_name
from vhostcomm.capture.show import quoted
from vhostcomm.text import counted

_FIRST_RECORD_LINE: Final = 2
_COMPARED: Final = (*HEADER_FIELDS, "data", "padding")
_SHOWN: Final = 24
"""Bytes to show from the first difference on, if the two shortened values look the same."""

MATCHED_WHOLE: Final = 1 << 20
"""Largest product of the two numbers of records to match at once: with few distinct keys, the time grows with it."""
WINDOW: Final = 1024
"""Records to match at a time above that. A window this long bridges a burst that only one capture has."""

_Key = tuple[object, ...]
_Run = tuple[int, int, int, int]
"""Start and end in the first capture, start and end in the second. These records pair off, except the excess."""


@frozen
class Difference:
    """One difference. Lines count from 1, each in its own capture; None if that capture has no such record."""

    line_a: int | None
    line_b: int | None
    what: str

    def __str__(self) -> str:
        place = f"{self.line_a or '-'} | {self.line_b or '-'}"
        return f"{place:>9}  {self.what}"


def compare(a: Capture, b: Capture, *, request_ids: bool = False) -> list[Difference]:
    """Compare two captures: records that only one of them has, and the differences within pairs of records.

    Compares direction, header fields, data, padding, refusals and skipped bytes, but neither times nor the assumed
    fields of a reconstruction. Request ids are random, so without `request_ids` only their pattern counts: which
    records share an id.
    """
    keys_a, keys_b = ([_key(record) for record in capture.records] for capture in (a, b))
    ids = None if request_ids else _Ids()
    lines_a, lines_b = (list(enumerate(capture.records, _FIRST_RECORD_LINE)) for capture in (a, b))
    found = []
    for a1, a2, b1, b2 in _aligned(keys_a, keys_b):
        for in_a, in_b in zip_longest(lines_a[a1:a2], lines_b[b1:b2]):
            if in_a and in_b:
                found += [Difference(in_a[0], in_b[0], what) for what in _differ(in_a[1], in_b[1], ids)]
            elif in_a:
                found.append(Difference(in_a[0], None, f"only in the first: {describe(in_a[1])}"))
            elif in_b:
                found.append(Difference(None, in_b[0], f"only in the second: {describe(in_b[1])}"))
    return found


def describe(record: Record) -> str:
    """Describe a record on one line."""
    if isinstance(record, SkippedRecord):
        return f"{record.direction.value} {counted(len(record.raw), 'byte')} skipped ({record.why.value}) {quoted(record.raw)}"
    kind = "request" if record.frame.is_request else "response"
    return f"{record.direction.value} {kind} {_name(record)} {quoted(record.frame.data)}"


def _name(record: FrameRecord) -> str:
    return command_name(record) or f"command {record.frame.command}"


# -- pairing the records


def _key(record: Record) -> _Key:
    if isinstance(record, SkippedRecord):
        return (record.direction, record.why)
    return (record.direction, record.frame.is_request, record.frame.command)


def _aligned(a: Sequence[_Key], b: Sequence[_Key]) -> Iterator[_Run]:
    """Cover both captures with runs, in order. A pass from each end finds what they have in common there."""
    shorter = min(len(a), len(b))
    head = next((place for place in range(shorter) if a[place] != b[place]), shorter)
    shorter -= head
    tail = next((place for place in range(shorter) if a[-1 - place] != b[-1 - place]), shorter)
    if head:
        yield 0, head, 0, head
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    size = max(len(a), len(b)) if len(middle_a) * len(middle_b) <= MATCHED_WHOLE else WINDOW
    for a1, a2, b1, b2 in _matched(middle_a, middle_b, size):
        yield head + a1, head + a2, head + b1, head + b2
    if tail:
        yield len(a) - tail, len(a), len(b) - tail, len(b)


def _matched(a: Sequence[_Key], b: Sequence[_Key], window: int) -> Iterator[_Run]:
    at_a = at_b = 0
    while at_a < len(a) or at_b < len(b):
        part_a, part_b = a[at_a : at_a + window], b[at_b : at_b + window]
        runs = SequenceMatcher(None, part_a, part_b, autojunk=False).get_opcodes()
        is_last = at_a + len(part_a) == len(a) and at_b + len(part_b) == len(b)
        if not is_last and len(runs) > 1 and runs[-1][0] != "equal":
            runs.pop()  # its records may match in the next window
        for _, a1, a2, b1, b2 in runs:
            yield at_a + a1, at_a + a2, at_b + b1, at_b + b2
        at_a, at_b = at_a + runs[-1][2], at_b + runs[-1][4]


# -- comparing a pair


@frozen
class _Ids:
    """The request ids of both captures, each with the number of the pair where it first occurred."""

    a: dict[int, int] = field(factory=dict)
    b: dict[int, int] = field(factory=dict)
    pairs: Iterator[int] = field(factory=count)

    def same(self, id_a: int, id_b: int) -> bool:
        """Return whether both ids are new, or both first occurred in the same pair."""
        pair = next(self.pairs)
        return self.a.setdefault(id_a, pair) == self.b.setdefault(id_b, pair)


def _differ(a: Record, b: Record, ids: _Ids | None) -> Iterator[str]:
    if not (isinstance(a, FrameRecord) and isinstance(b, FrameRecord)):
        yield from _differ_skipped(a, b)
        return
    if a.direction is not b.direction:
        yield f"direction: {a.direction.value} | {b.direction.value}"
    for name in _COMPARED:
        value_a, value_b = getattr(a.frame, name), getattr(b.frame, name)
        same = ids.same(value_a, value_b) if ids and name == "request_id" else value_a == value_b
        if not same:
            yield f"{_name(a)} {name}: {_apart(value_a, value_b)}"
    if a.refused != b.refused:
        yield f"{_name(a)} refused: {quoted(a.refused)} | {quoted(b.refused)}"


def _differ_skipped(a: Record, b: Record) -> Iterator[str]:
    if type(a) is not type(b) or a.direction is not b.direction or len(a.raw) != len(b.raw):
        yield f"{describe(a)} | {describe(b)}"
    elif a.raw != b.raw:
        yield f"{a.direction.value} {counted(len(a.raw), 'byte')} skipped: {_apart(a.raw, b.raw)}"


def _apart(a: object, b: object) -> str:
    """Show two values, shortened, from a place where they differ."""
    shown_a, shown_b = quoted(a), quoted(b)
    if shown_a != shown_b or not (isinstance(a, bytes) and isinstance(b, bytes)):
        return f"{shown_a} | {shown_b}"
    shorter = min(len(a), len(b))
    place = next((place for place in range(shorter) if a[place] != b[place]), shorter)
    return f"from byte {place} on {quoted(a[place : place + _SHOWN])} | {quoted(b[place : place + _SHOWN])}"
