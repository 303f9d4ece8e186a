"""Find secrets in a text by their form: serial numbers, UUIDs, MAC and IP addresses.

A label, an escape or a unit may touch a secret, so most forms match anywhere, not only as whole words. Doubtful
matches count as secrets: a hash, a version of four numbers. Versions of three numbers (``7.2.1-69057``), times of day
and plain numbers do not.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from attrs import frozen

from vhostcomm.capture.known import alnum

SERIAL_SIZE: Final = 13
"""Characters of all known serial numbers."""

COVER: Final = "\0"
"""Replaces a match, so that later patterns ignore it."""


@frozen
class Found:
    """A secret in a text, at ``text[start:end]``, with its normalized spelling.

    Its kind is ``serial``, ``uuid``, ``mac``, ``ipv4`` or ``ipv6``.
    """

    start: int
    end: int
    kind: str
    secret: str


def find_secrets(text: str) -> list[Found]:
    """Return the secrets of a text, in order and without overlaps."""
    found: list[Found] = []

    def cover(judge: _Judge, match: re.Match[str]) -> str:
        covered = match[0]
        for each in judge(match):
            found.append(each)
            start, end = each.start - match.start(), each.end - match.start()
            covered = covered[:start] + COVER * (end - start) + covered[end:]
        return covered

    left = text
    for pattern, judge in _FORMS:
        left = pattern.sub(partial(cover, judge), left)
    return sorted(found, key=lambda each: each.start)


_Judge = Callable[[re.Match[str]], Iterator[Found]]


def _whole(kind: str, spell: Callable[[str], str]) -> _Judge:
    def judge(match: re.Match[str]) -> Iterator[Found]:
        yield Found(match.start(), match.end(), kind, spell(match[0]))

    return judge


def _serial(match: re.Match[str]) -> Iterator[Found]:
    group = match.lastindex or 0
    yield Found(match.start(group), match.end(group), "serial", alnum(match[group]))


def _undashed_uuid(word: str) -> str:
    """Spell 32 digits as a UUID. A longer run is a hash or contains a UUID, and counts as a whole."""
    return str(uuid.UUID(hex=word)) if len(word) == 32 else word.lower()


def _mac(word: str) -> str:
    groups = re.split("[:. -]", word.lower())
    digits = "".join(groups if len(groups) == 1 else (group.zfill(2) for group in groups))
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))


def _ipv4(match: re.Match[str]) -> Iterator[Found]:
    """Find an address in numbers and dots. A fifth number above 255 is a port; longer runs count as a whole."""
    parts = match[0].split(".")
    # A prefix may end in digits: eth0192.168.1.5.
    glued = next((len(parts[0]) - size for size in (3, 2) if len(parts[0]) > 3 and int(parts[0][-size:]) <= 255), 0)
    parts[0] = parts[0][glued:]
    octets = [_is_octet(part) for part in parts]
    if len(parts) == 5 and all(octets[:4]) and not octets[4]:
        parts.pop()
    if any(all(octets[at : at + 4]) for at in range(len(parts) - 3)):
        spelt = ".".join(part.lstrip("0") or "0" for part in parts)
        start = match.start() + glued
        yield Found(start, start + len(".".join(parts)), "ipv4", spelt)


def _octets(match: re.Match[str]) -> Iterator[Found]:
    """Find four numbers with separators other than dots."""
    numbers = re.findall("[0-9]+", match[0])
    if all(map(_is_octet, numbers)):
        place = next(re.finditer("[0-9]", match[0])).start()
        spelt = ".".join(number.lstrip("0") or "0" for number in numbers)
        yield Found(match.start() + place, match.end(), "ipv4", spelt)


def _is_octet(part: str) -> bool:
    return len(part) <= len("255") and int(part) <= 255


def _ipv6(match: re.Match[str]) -> Iterator[Found]:
    """Find the longest address in a run of groups and colons. The first or last colon may belong to other text."""
    groups = match[0].split(":")
    starts = [match.start()]
    for group in groups[:-1]:
        starts.append(starts[-1] + len(group) + 1)
    at = 0
    while at < len(groups):
        for size in range(min(_MOST_GROUPS, len(groups) - at), 2, -1):
            word = ":".join(groups[at : at + size])
            if secret := _ipv6_address(word):
                yield Found(starts[at], starts[at] + len(word), "ipv6", secret)
                at += size - 1
                break
        at += 1


_MOST_GROUPS: Final = 9
"""Maximum groups of an IPv6 address between colons: eight, and an empty one."""


def _ipv6_address(word: str) -> str:
    """Return the normalized address, or "" for an invalid one or one with a single number, such as ``std::``."""
    if sum(map(bool, word.split(":"))) < 2:
        return ""
    try:
        return str(ipaddress.IPv6Address(word))
    except ValueError:
        return ""


_X = "[0-9a-fA-F]"
_WORD = "[0-9a-zA-Z]"
_ALONE = rf"(?<!{_WORD})(?:%s)(?!{_WORD})"
_COLONS = rf"{_X}{{2}}(?::{_X}{{2}})"
_PAIRS = rf"{_COLONS}{{5,}}|{_X}{{2}}(?:-{_X}{{2}}){{5,}}"
_OCTETS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_LABEL = r"(?:(?<![0-9a-zA-Z])(?:sn|s/n|s\.n\.)|serial(?:[ _-]?(?:no|num|nr|number))?)"
_ALL_SERIAL = rf"{_WORD}{{{SERIAL_SIZE}}}"

_FORMS: Final[tuple[tuple[re.Pattern[str], _Judge], ...]] = tuple(
    (re.compile(pattern), judge)
    for pattern, judge in (
        # Our own placeholder: no part of it is a secret.
        ("REDACTED[0-9]+", _serial),
        (
            rf"{_X}{{8}}(?:[-_]{_X}{{4}}){{3}}[-_]{_X}{{12}}",
            _whole("uuid", lambda word: word.lower().replace("_", "-")),
        ),
        (rf"{_X}{{32,}}", _whole("uuid", _undashed_uuid)),
        # More pairs than an IPv6 address has; then IPv6 addresses, which may end with six pairs; then MAC addresses.
        (rf"{_COLONS}{{8,}}", _whole("mac", _mac)),
        (rf"(?:{_X}{{0,4}}:){{2,}}(?:{_OCTETS}|{_X}{{0,4}})", _ipv6),
        (_ALONE % _PAIRS, _whole("mac", _mac)),
        (_PAIRS, _whole("mac", _mac)),
        (_ALONE % rf"{_X}{{2}}(?: {_X}{{2}}){{5,}}", _whole("mac", _mac)),
        (rf"(?<![0-9a-zA-Z:]){_X}{{1,2}}(?::{_X}{{1,2}}){{5}}(?![0-9a-zA-Z:])", _whole("mac", _mac)),
        (rf"(?<!{_X})(?=0|[0-9.]{{0,19}}[a-fA-F]){_X}{{4}}(?:\.{_X}{{4}}){{2,3}}(?!{_X})", _whole("mac", _mac)),
        (
            rf"(?i:{_LABEL})(?:[\"']?\s*[:=#]\s*[\"']?|\s+)(?=[a-zA-Z_-]{{0,64}}[0-9])(?=[\w-]{{6}})({_WORD}[\w-]*{_WORD})",
            _serial,
        ),
        # The form of nearly all serial numbers, anywhere: a year, …, three letters, six digits.
        (rf"[0-9]{_WORD}{{3}}[a-zA-Z]{{3}}[0-9]{{6}}", _serial),
        (rf"(?<!{_WORD})(?i:sn)?((?=[0-9]*[A-Z])(?=[A-Z]*[0-9])[0-9A-Z]{{{SERIAL_SIZE}}})(?!{_WORD})", _serial),
        # In lower case it may be any word: require four digits.
        (rf"(?<!{_WORD})(?i:sn)?((?=[0-9]*[a-zA-Z])(?=(?:[a-zA-Z]*[0-9]){{4}}){_ALL_SERIAL})(?!{_WORD})", _serial),
        # Twelve or sixteen digits without a letter are a number, unless they begin with 0, as many vendors' MACs do.
        (rf"(?:(?<!{_X})|(?<=mac)|(?<=MAC))(?=0|[0-9]*[a-fA-F]){_X}{{12}}(?:{_X}{{4}})?(?!{_X})", _whole("mac", _mac)),
        (r"(?<![0-9])[0-9]+(?:\.[0-9]+){3,}", _ipv4),
        (r"(?<![0-9-])[0-9]{1,3}(?:-[0-9]{1,3}){3}(?![0-9-])", _octets),
        (r"\[\s?[0-9]{1,3}(?:\s?,\s?[0-9]{1,3}){3}(?=\s?\])", _octets),
    )
)
