"""Secrets in text, data and single values → placeholders."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

from vchannel import DATA_SIZE
from vhostcomm.capture.finding import Found, find_secrets, upper
from vhostcomm.capture.format import text_of
from vhostcomm.capture.placeholders import Numbers, Placeholders, is_placeholder

_SHORTEST_SERIAL: Final = 6
"""A shorter word would be found inside others that are no secret."""

_ROUNDS: Final = 8
"""Where secrets stand side by side, what is left of one and the placeholder of another can look like a third."""

_SERIAL_KEY: Final = re.compile(r"(?i)serial|(?<![a-z])sn(?![a-z])")
_ESCAPE: Final = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_MASK: Final = bytes([0]) + b"x" * 255


def mask(data: bytes) -> bytes:
    """Bytes of which nothing but their number and the place of NULs may be shown: x for each other one."""
    return data.translate(_MASK)


class Redactor:
    """Replaces secrets, and remembers which placeholder each got.

    Placeholders are of the secret's own kind: serials keep their length if it is 9 or more, addresses
    are from the ranges set aside for documentation. What is all zeros, loopback addresses, netmasks
    and what looks like a placeholder stay. So redacting twice changes nothing.

    Which secrets are found, and in which spellings, `find_secrets` says. A serial number that stood
    under its key or label, or that the host gave as its answer, is found in all that is redacted later,
    whatever it looks like. `learn` all there is before the first text is redacted.
    """

    def __init__(self) -> None:
        self.request_ids = Numbers()
        self.guest_ids = Numbers()
        self._placeholders = Placeholders()
        self._serials: set[str] = set()
        self._serial_pattern: re.Pattern[str] | None = None

    def add_serial(self, serial: str) -> None:
        """Take a word of six characters or more for a serial number wherever it stands."""
        word = upper(serial)
        if len(word) >= _SHORTEST_SERIAL and word not in self._serials and not is_placeholder("serial", word):
            self._serials.add(word)
            self._serial_pattern = None

    def learn(self, text: str, *, serial: bool = False) -> None:
        """See which serial numbers and placeholders a text has; with `serial`, all of it is one."""
        try:
            for word, is_serial in _words(text, serial):
                if is_serial:
                    self._learn_serial(upper(word.strip()))
                    continue
                for found in find_secrets(word):
                    self._placeholders.reserve(found.kind, found.secret)
                    if found.kind == "serial":
                        self._learn_serial(found.secret)
        except RecursionError:
            return

    def _learn_serial(self, word: str) -> None:
        self._placeholders.reserve("serial", word)
        if any(letter.isdigit() for letter in word):  # a word under such a key may be any: "unknown"
            self.add_serial(word)

    def text(self, text: str, *, serial: bool = False) -> str:
        """Text with placeholders for its secrets; with `serial`, all of it is a serial number.

        A JSON document is redacted value by value and written without spaces; keys under which a
        serial number stands are those with "serial" in them, or "sn". In other text, JSON's escapes
        of ASCII characters are resolved. What never comes to an end is masked, as is JSON too deep to
        be any guest's.
        """
        self.learn(text, serial=serial)
        for _ in range(_ROUNDS):
            try:
                redacted = self._once(text, serial)
            except RecursionError:
                break
            if redacted == text:
                return text
            text = redacted
        return "x" * len(text)

    def _once(self, text: str, serial: bool) -> str:
        document = _document(text)
        if document is not None:
            return _compact(self._value(document[0], serial))
        return self._serial(text) if serial else self._replace(_unescaped(text))

    def uuid(self, raw: bytes) -> bytes:
        """A binary UUID: it gets the placeholder that its text gets."""
        return uuid.UUID(self._placeholders.of("uuid", str(uuid.UUID(bytes=raw)))).bytes

    def learn_uuid(self, raw: bytes) -> None:
        self._placeholders.reserve("uuid", str(uuid.UUID(bytes=raw)))

    def data(self, data: bytes, *, room: int = DATA_SIZE, serial: bool = False) -> bytes:
        """Data of a frame: as `text` where it is text that still has room; else as `mask` has it."""
        text = text_of(data)
        if text is None:
            return mask(data)
        redacted = self.text(text, serial=serial).encode() + (b"\0" if data.endswith(b"\0") else b"")
        return redacted if len(redacted) <= room else mask(data)

    def _value(self, value: Any, serial: bool) -> Any:
        match value:
            case dict():
                return {
                    self._replace(_unescaped(key)): self._value(each, serial or is_serial_key(key))
                    for key, each in value.items()
                }
            case list():
                return [self._value(each, serial) for each in value]
            case str():
                return self._once(value, serial)
            case bool() | None:
                return value
            case _:
                shown = str(value)
                redacted = self._serial(shown) if serial else self._replace(shown)
                return value if redacted == shown else redacted

    def _serial(self, text: str) -> str:
        word = text.strip()
        return text.replace(word, self._written(Found(0, len(word), "serial", upper(word)), word)) if word else text

    def _replace(self, text: str) -> str:
        pieces, at = [], 0
        for found in find_secrets(text, self._known_serials()):
            pieces += [text[at : found.start], self._written(found, text[found.start : found.end])]
            at = found.end
        return "".join([*pieces, text[at:]])

    def _known_serials(self) -> re.Pattern[str] | None:
        if self._serials and self._serial_pattern is None:
            words = sorted(self._serials, key=len, reverse=True)
            # Ignoring the case of ASCII alone, as upper() does: no word is found that isn't known.
            self._serial_pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE | re.ASCII)
        return self._serial_pattern

    def _written(self, found: Found, word: str) -> str:
        """A secret's placeholder, written as the secret is."""
        placeholder = self._placeholders.of(found.kind, found.secret)
        if placeholder == found.secret:
            return word
        if found.kind == "uuid" and "-" not in word:
            return placeholder.replace("-", "")
        if found.kind == "mac" and ":" not in word:
            digits = placeholder.replace(":", "")
            mark, size = ("-", 2) if "-" in word else (".", 4) if "." in word else ("", len(digits))
            return mark.join(digits[place : place + size] for place in range(0, len(digits), size))
        return placeholder


def is_serial_key(key: str) -> bool:
    """Whether a serial number stands under a key of a JSON object."""
    return _SERIAL_KEY.search(key) is not None


def _document(text: str) -> tuple[Any] | None:
    """The value of a JSON document; numbers alone are text."""
    if text.lstrip()[:1] not in {"{", "[", '"'}:
        return None
    try:
        return (json.loads(text),)
    except ValueError:
        return None


def _words(text: str, serial: bool) -> Iterator[tuple[str, bool]]:
    """Each text within a text, and whether it stands where a serial number does."""
    document = _document(text)
    if document is None:
        yield text if serial else _unescaped(text), serial
    else:
        yield from _leaves(document[0], serial)


def _leaves(value: Any, serial: bool) -> Iterator[tuple[str, bool]]:
    match value:
        case dict():
            for key, each in value.items():
                yield _unescaped(key), False
                yield from _leaves(each, serial or is_serial_key(key))
        case list():
            for each in value:
                yield from _leaves(each, serial)
        case str():
            yield from _words(value, serial)
        case bool() | None:
            return
        case _:
            yield str(value), serial


def _unescaped(text: str) -> str:
    while (plain := _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)) != text:
        text = plain
    return text


def _compact(value: object) -> str:
    """A value as JSON without spaces, in letters that stay text in a capture."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return written if written.isprintable() else json.dumps(value, separators=(",", ":"))
