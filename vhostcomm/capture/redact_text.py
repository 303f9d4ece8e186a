"""Replace the secrets in text, data and single values by placeholders."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from vhostcomm.capture.format import text_of
from vhostcomm.capture.known import SHORTEST, Known, Spelling, Value, alnum, spellings
from vhostcomm.capture.placeholders import Placeholders, is_placeholder
from vhostcomm.capture.secret_patterns import COVER, Found, find_secrets

_ROUNDS: Final = 8
"""Maximum passes: the rest of one secret can look like another one next to a placeholder."""

_SERIAL_KEY: Final = re.compile(r"(?i)serial|(?<![a-z])sn(?![a-z])")
_ESCAPE: Final = re.compile(r"\\u00([2-7][0-9a-fA-F])|[%](2[dDeE]|3[0-9aA]|[46][1-9a-fA-F]|5[0-9aAfF]|7[0-9aA])")
"""JSON's escapes of ASCII, and a URL's escapes of the characters that a secret may have."""

_MASK: Final = bytes([0]) + b"x" * 255


def mask(data: bytes) -> bytes:
    """Replace each byte except NUL by x: only the length and the positions of NULs stay."""
    return data.translate(_MASK)


class Redactor:
    """Replaces secrets, and remembers the placeholder of each.

    A placeholder is of the secret's own kind. Serial numbers of 9 characters or more keep their length; addresses are
    from the ranges for documentation. Zeros, loopback addresses, netmasks and existing placeholders stay, so redacting
    twice changes nothing.

    `find_secrets` recognises secrets by their form. `Known` then finds each learned secret in any spelling. A serial
    number is learned in any form if it has a key or label, or was the host's answer. Call `learn` with all texts before
    redacting the first.
    """

    def __init__(self) -> None:
        self._placeholders = Placeholders()
        self._known = Known()

    def _add(self, kind: str, secret: str) -> None:
        if kind == "serial" and not any(map(str.isdigit, secret)):  # it may be any word: "unknown"
            return
        self._placeholders.reserve(kind, secret)
        if not is_placeholder(kind, secret) and (kind != "serial" or len(secret) >= SHORTEST):
            self._known.add(kind, secret)

    def learn(self, text: str, *, serial: bool = False) -> None:
        """Learn the secrets and placeholders of a text; with `serial`, the whole text is a serial number."""
        with suppress(RecursionError):
            for word, is_serial in _texts(text, serial):
                if is_serial:
                    self._add("serial", alnum(word))
                    continue
                for found in find_secrets(word):
                    self._add(found.kind, found.secret)

    def text(self, text: str, *, serial: bool = False) -> str:
        """Redact a text; with `serial`, the whole text is a serial number.

        A JSON document is redacted value by value and written without spaces. A key with "serial" or "sn" in its name
        has a serial number as its value. In other text, JSON's escapes of ASCII characters are resolved. The text is
        masked if it still changes after several passes, or is JSON that is nested too deeply.
        """
        self.learn(text, serial=serial)
        for _ in range(_ROUNDS):
            try:
                redacted = self._value(text, serial)
            except RecursionError:
                break
            if redacted == text:
                return text
            text = redacted
        return "x" * len(text)

    def uuid(self, raw: bytes) -> bytes:
        """Redact a binary UUID. It gets the same placeholder as its text."""
        return uuid.UUID(self._placeholders.of("uuid", str(uuid.UUID(bytes=raw)))).bytes

    def learn_uuid(self, raw: bytes) -> None:
        self._add("uuid", str(uuid.UUID(bytes=raw)))

    def number(self, kind: str, number: int) -> int:
        """Redact a `request_id` or `guest_id`."""
        return int(self._placeholders.of(kind, str(number)))

    def learn_number(self, kind: str, number: int) -> None:
        self._placeholders.reserve(kind, str(number))

    def data(self, data: bytes, *, serial: bool = False) -> bytes:
        """Redact the data of a frame as text, which may become longer. Mask it if it is no text."""
        text = text_of(data)
        if text is None:
            return mask(data)
        return self.text(text, serial=serial).encode() + (b"\0" if data.endswith(b"\0") else b"")

    def _value(self, value: Any, serial: bool) -> Any:
        """Redact a value of JSON, once. A text may be a document itself."""
        match value:
            case str():
                if document := _document(value):
                    return compact(self._value(document[0], serial))
                return self._serial(value) if serial else self._replace(_unescaped(value))
            case dict():
                return {
                    self._replace(_unescaped(key)): self._value(each, serial or is_serial_key(key))
                    for key, each in value.items()
                }
            case list():
                return self._numbers(value) or [self._value(each, serial) for each in value]
            case bool() | None:
                return value
            case _:
                shown = str(value)
                redacted = self._serial(shown) if serial else self._replace(shown)
                return value if redacted == shown else redacted

    def _numbers(self, value: list[Any]) -> list[Any] | None:
        """Redact a list of numbers that is an address or known bytes; return None for any other list."""
        if not value or not all(type(each) is int and 0 <= each <= 255 for each in value):
            return None
        raw = bytes(value)
        if len(raw) == 4:
            return list(self._raw(Value("ipv4", str(ipaddress.IPv4Address(raw)))))
        known = self._known.value_of(raw)
        if known is None:
            return None
        stands_for = self._raw(known)
        return list(stands_for) if len(stands_for) == len(raw) else [0] * len(raw)

    def _raw(self, value: Value) -> bytes:
        placeholder = self._placeholders.of(value.kind, value.secret)
        _, raws = spellings(value.kind, placeholder)
        return raws[0] if raws else placeholder.encode()

    def _serial(self, text: str) -> str:
        word = text.strip()
        return text.replace(word, self._written(Found(0, len(word), "serial", alnum(word)), word)) if word else text

    def _replace(self, text: str) -> str:
        left, places = list(text), []
        for spelling in self._known.find(text):
            start, end = spelling.parts[0][0], spelling.parts[-1][1]
            places.append((start, end, partial(self._respelt, spelling, text)))
            left[start:end] = COVER * (end - start)
        for found in find_secrets("".join(left)):
            word = text[found.start : found.end]
            places.append((found.start, found.end, partial(self._written, found, word)))
        pieces, at = [], 0
        for start, end, written in sorted(places, key=lambda each: each[0]):  # `written` numbers placeholders
            pieces += [text[at:start], written()]
            at = end
        return "".join([*pieces, text[at:]])

    def _respelt(self, spelling: Spelling, text: str) -> str:
        """Write a known value's placeholder with the original separators, or x for each letter of an encoding."""
        value, parts = spelling.value, spelling.parts
        if value.kind == "ipv6" and ":" in text[parts[0][0] : parts[-1][1]]:
            return self._placeholders.of(value.kind, value.secret)
        if spelling.base is None:
            stands_for = [
                "".join("x" if letter.isalnum() else letter for letter in text[slice(*part)]) for part in parts
            ]
        elif spelling.base == 0:
            placeholder = self._placeholders.of(value.kind, value.secret)
            stands_for = list(filter(str.isalnum, placeholder))
            if len(stands_for) != len(parts):
                return placeholder
        else:
            stands_for = [str(each) if spelling.base == 10 else f"{each:02x}" for each in self._raw(value)]
        written, at = [], parts[0][0]
        for (start, end), new in zip(parts, stands_for, strict=True):
            written += [text[at:start], new]
            at = end
        return "".join(written)

    def _written(self, found: Found, word: str) -> str:
        """Write the placeholder of a secret in the secret's own spelling."""
        placeholder = self._placeholders.of(found.kind, found.secret)
        if placeholder == found.secret:
            return word
        if found.kind == "ipv4" and "." not in word:
            octets = iter(placeholder.split("."))
            return re.sub("[0-9]+", lambda _: next(octets), word)
        letters = list(filter(str.isalnum, placeholder))
        if found.kind not in {"ipv4", "ipv6"} and len(letters) == sum(map(str.isalnum, word)):
            replaced = iter(letters)
            return "".join(next(replaced) if letter.isalnum() else letter for letter in word)
        return placeholder if "-" in word else placeholder.replace("-", "")


def is_serial_key(key: str) -> bool:
    """Return whether the value of a JSON object's key is a serial number."""
    return _SERIAL_KEY.search(key) is not None


def _document(text: str) -> tuple[Any] | None:
    """Return the value of a JSON document as a tuple; None for other text, including a bare number."""
    if text.lstrip()[:1] not in {"{", "[", '"'}:
        return None
    try:
        return (json.loads(text),)
    except ValueError:
        return None


def _texts(value: Any, serial: bool) -> Iterator[tuple[str, bool]]:
    """Yield each text within a value of JSON, and whether it is a serial number. A text may be a document itself."""
    match value:
        case str():
            if document := _document(value):
                yield from _texts(document[0], serial)
            else:
                yield value if serial else _unescaped(value), serial
        case dict():
            for key, each in value.items():
                yield _unescaped(key), False
                yield from _texts(each, serial or is_serial_key(key))
        case list():
            for each in value:
                yield from _texts(each, serial)
        case bool() | None:
            return
        case _:
            yield str(value), serial


def _unescaped(text: str) -> str:
    while (plain := _ESCAPE.sub(lambda match: chr(int(match[match.lastindex or 0], 16)), text)) != text:
        text = plain
    return text


def compact(value: object) -> str:
    """Format a value as JSON without spaces, and with escapes where a capture would not show it as text."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return written if written.isprintable() else json.dumps(value, separators=(",", ":"))
