"""Find known identity values in a text, in any spelling.

A spelling may have any case, any separators (``1780-PDN-123456``) and the escapes of JSON or URLs. It may be numbers
(``[192,168,178,23]``), hexadecimal or base64. The time depends on the length of the text, not on the number of
known values: an index finds candidates by their first characters.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from attrs import frozen

GAP: Final = 4
"""Maximum characters between two of a value, such as `": "`. Longer gaps separate two values."""

SHORTEST: Final = 6
"""Minimum letters and digits of a serial number: a shorter one would be found inside harmless words."""

_LONG: Final = 8
"""Minimum letters and digits of a value to find across separators: a shorter one would be found in times of day."""

_LONGEST: Final = 64
"""Letters and digits that are matched at once. A longer serial number, from a hostile guest, is matched in pieces."""

_DEPTH: Final = 2
"""Maximum nested encodings of a value, such as hexadecimal of base64."""

_ESCAPE: Final = re.compile(
    r"%([0-9a-fA-F]{2})|\\x([0-9a-fA-F]{2})|\\u00([0-9a-fA-F]{2})|&#x([0-9a-fA-F]{2});|\\(?=[\"\\/])"
)
_DECIMAL: Final = re.compile(r"[0-9]+")
_PAIR: Final = re.compile(r"(?<![0-9A-Za-z])(?:0[xX])?([0-9a-fA-F]{1,2})(?![0-9A-Za-z])")
_HEX_RUN: Final = re.compile(r"[0-9a-fA-F]{4,}(?:[ .:_-][0-9a-fA-F]{2,})*")
"""Hexadecimal digits, also in groups as in a hex dump."""

_BASE64_RUN: Final = re.compile(r"[0-9A-Za-z+/_-]{6,}={0,2}")
_TEXT_RUN: Final = re.compile(rb"[\0\t\n\r -~]{6,}")
"""Text in decoded bytes, including the NULs of UTF-16. Most decoded runs were no encoding and have little text."""

_URL_SAFE: Final = str.maketrans("-_", "+/")
_LITERAL_IPV6: Final = re.compile(r"(?<![0-9a-zA-Z-])[0-9a-fA-F-]{3,39}(?![0-9a-zA-Z-])")


@frozen
class Value:
    """An identity value: its kind as in `secret_patterns.Found`, and its normalized spelling."""

    kind: str
    secret: str


@frozen
class Spelling:
    """An occurrence of a known value in a text.

    Args:
        value: the known value.
        parts: start and end of each of its characters or numbers.
        base: 10 or 16 if `parts` are numbers of that base, 0 if they are the characters of `value.secret`, None if
            they encode it.
    """

    value: Value
    parts: tuple[tuple[int, int], ...]
    base: int | None = 0


def alnum(text: str) -> str:
    """Return the letters and digits of a text, with ASCII letters in upper case."""
    return "".join(filter(str.isalnum, text.translate(_UPPER)))


_UPPER: Final = {ord("a") + place: ord("A") + place for place in range(26)}

T = TypeVar("T", str, bytes)


class _Index(Generic[T]):
    """An index of sequences, by their first few elements and their length."""

    def __init__(self, head: int) -> None:
        self._head = head
        self._values: dict[T, Value] = {}
        self._sizes: defaultdict[T, set[int]] = defaultdict(set)

    def add(self, sequence: T, value: Value) -> None:
        self._values.setdefault(sequence, value)
        self._sizes[sequence[: self._head]].add(len(sequence))

    def find(self, sequence: T) -> Iterator[tuple[int, int, Value]]:
        """Yield start, end and value of each match from left to right, preferring the longest."""
        if not self._values:
            return
        at = 0
        while at <= len(sequence) - self._head:
            for size in sorted(self._sizes.get(sequence[at : at + self._head], ()), reverse=True):
                value = self._values.get(sequence[at : at + size])
                if value and at + size <= len(sequence):  # a slice at the end may be shorter than `size`
                    yield at, at + size, value
                    at += size - 1
                    break
            at += 1


class Known:
    """A set of known values to search for."""

    def __init__(self) -> None:
        self._words = _Index[str](SHORTEST)
        self._raw = _Index[bytes](4)
        self._ipv6: dict[str, Value] = {}
        self._all: set[Value] = set()

    def add(self, kind: str, secret: str) -> None:
        """Add a value. A value that is malformed for its kind, such as an address of five numbers, is ignored."""
        value = Value(kind, secret)
        if value in self._all:
            return
        self._all.add(value)
        try:
            words, raws = spellings(kind, secret)
        except ValueError:
            return
        for word in words:
            if len(word) >= SHORTEST:
                self._words.add(word, value)
        for raw in raws:
            self._raw.add(raw, value)
        if kind == "ipv6":
            self._ipv6[secret] = value

    def find(self, text: str) -> list[Spelling]:
        """Return the known values in a text, in order and without overlaps."""
        if not self._all:
            return []
        # Plain spellings first: they may begin an apparent encoding, as MAC021132… begins with hexadecimal digits.
        found = sorted(
            self._find(text, _DEPTH), key=lambda each: (each.base is None, each.parts[0][0], -each.parts[-1][1])
        )
        covered = bytearray(len(text))
        kept: list[Spelling] = []
        for each in found:
            start, end = each.parts[0][0], each.parts[-1][1]
            if not any(covered[start:end]):
                covered[start:end] = b"\1" * (end - start)
                kept.append(each)
        return sorted(kept, key=lambda each: each.parts[0][0])

    def value_of(self, raw: bytes, depth: int = _DEPTH) -> Value | None:
        """Return the value that these bytes are or contain: a binary address, or the text of a serial number."""
        for _, _, value in self._raw.find(raw):
            return value
        for run in _TEXT_RUN.finditer(raw):
            for each in self._find(run[0].decode("ascii"), depth - 1):
                return each.value
        return None

    def _find(self, text: str, depth: int) -> Iterator[Spelling]:
        letters, places = _decoded(text)
        yield from self._find_words(letters, places)
        yield from self._find_numbers(letters, places, _DECIMAL, 10, depth)
        yield from self._find_numbers(letters, places, _PAIR, 16, depth)
        for match in _LITERAL_IPV6.finditer(letters) if self._ipv6 else ():
            try:
                value = self._ipv6.get(str(ipaddress.IPv6Address(match[0].replace("-", ":"))))
            except ValueError:
                continue
            if value:
                yield Spelling(value, (_span(places, *match.span()),), None)
        if not depth:
            return
        for match in (*_HEX_RUN.finditer(letters), *_BASE64_RUN.finditer(letters)):
            for raw in _decodings(match[0], hexadecimal=match.re is _HEX_RUN):
                if value := self.value_of(raw, depth):
                    yield Spelling(value, (_span(places, *match.span()),), None)
                    break

    def _find_words(self, letters: str, places: list[tuple[int, int]]) -> Iterator[Spelling]:
        at = [place for place, letter in enumerate(letters) if letter.isalnum()]
        word = "".join(letters[place] for place in at).translate(_UPPER)
        for start, end, value in self._words.find(word):
            gap = 1 if end - start < _LONG else 1 + GAP
            if all(
                behind - before <= gap for before, behind in zip(at[start : end - 1], at[start + 1 : end], strict=True)
            ):
                same = alnum(value.secret) == word[start:end]
                yield Spelling(value, tuple(places[place] for place in at[start:end]), 0 if same else None)

    def _find_numbers(
        self, letters: str, places: list[tuple[int, int]], token: re.Pattern[str], base: int, depth: int
    ) -> Iterator[Spelling]:
        run: list[tuple[int, int]] = []
        numbers = bytearray()
        for match in token.finditer(letters):
            start, end = match.span(match.lastindex or 0)
            if base == 10:  # a prefix may end in digits: eth0192.168…
                start = max(start, end - 3) if int(letters[max(start, end - 3) : end]) <= 255 else max(start, end - 2)
            separator = letters[run[-1][1] : match.start()] if run else ""
            if run and (not 0 < len(separator) <= GAP or any(map(str.isalnum, separator))):
                yield from self._find_in_run(bytes(numbers), run, places, base, depth)
                run, numbers = [], bytearray()
            run.append((start, end))
            numbers.append(int(letters[start:end], base))
        yield from self._find_in_run(bytes(numbers), run, places, base, depth)

    def _find_in_run(
        self, numbers: bytes, run: list[tuple[int, int]], places: list[tuple[int, int]], base: int, depth: int
    ) -> Iterator[Spelling]:
        for start, end, value in self._raw.find(numbers):
            yield Spelling(value, tuple(_span(places, *each) for each in run[start:end]), base)
        if depth and len(numbers) >= SHORTEST:
            text = numbers.decode("latin-1")
            for each in self._find(text, 0):
                first, last = each.parts[0][0], each.parts[-1][1]
                yield Spelling(each.value, tuple(_span(places, *part) for part in run[first:last]), None)


def spellings(kind: str, secret: str) -> tuple[list[str], list[bytes]]:
    """Return the spellings of a value: words in upper case without separators, and binary forms, the usual one first.

    Raises:
        ValueError: the value is malformed for its kind.
    """
    match kind:
        case "serial":
            word = alnum(secret)
            return [word[at : at + _LONGEST] for at in range(0, len(word), _LONGEST)], []
        case "mac":
            raw = bytes.fromhex(secret.replace(":", ""))
            return [raw.hex().upper()], [raw]
        case "uuid":
            value = uuid.UUID(secret)
            return [value.hex.upper(), value.bytes_le.hex().upper()], [value.bytes, value.bytes_le]
        case _:
            address = ipaddress.ip_address(secret)
            raw = address.packed
            words = [raw.hex().upper(), raw.hex().upper()[::-1]]
            if kind == "ipv4":
                words = [raw.hex().upper(), raw[::-1].hex().upper(), str(int(address))]
            return words, [raw, raw[::-1]]


def _decoded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Resolve the escapes of a text; also return the original span of each character."""
    places = [(place, place + 1) for place in range(len(text))]
    for _ in range(_DEPTH):
        letters: list[str] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for match in _ESCAPE.finditer(text):
            letters.append(text[at : match.start()])
            spans += places[at : match.start()]
            if match.lastindex:  # else a backslash before a quote or a slash
                letters.append(chr(int(match[match.lastindex], 16)))
                spans.append(_span(places, *match.span()))
            at = match.end()
        if not at:
            break
        text, places = "".join([*letters, text[at:]]), spans + places[at:]
    return text, places


def _decodings(run: str, *, hexadecimal: bool) -> Iterator[bytes]:
    """Decode a run of digits from several offsets: its first characters may be a prefix, not part of the encoding."""
    if hexadecimal:
        run = "".join(filter(str.isalnum, run))
        for skipped in (0, 1):
            digits = run[skipped:]
            yield bytes.fromhex(digits[: len(digits) // 2 * 2])
        return
    plain = run.rstrip("=").translate(_URL_SAFE)
    for skipped in range(4):
        digits = plain[skipped:]
        if len(digits) % 4 == 1:
            digits = digits[:-1]
        yield base64.b64decode(digits + "=" * (-len(digits) % 4))


def _span(places: list[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    return places[start][0], places[end - 1][1]
