"""Identities taken out of captures, so that they can be shown to others.

Serial numbers, MAC addresses, UUIDs and IP addresses become placeholders, the same secret always
the same one, wherever and however it is written. Other things a guest tells (names, for instance)
stay: read a capture before you publish it.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import Final

import attrs

from vchannel import DATA_SIZE, NIL_UUID, Frame, HostCommand
from vchannel.frame import counted_length
from vhostcomm.capture.format import Capture, FrameRecord, Record, SkippedRecord

_SERIAL_ANSWERS: Final = frozenset({HostCommand.GUEST_SERIAL, HostCommand.HOST_SERIAL})
_SERIAL_SIZE: Final = 13

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_MAC = r"[0-9a-fA-F]{2}(?:(?::[0-9a-fA-F]{2}){5}|(?:-[0-9a-fA-F]{2}){5})"
_IPV6 = r"(?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{0,4})"
_IPV4 = r"(?:\d{1,3}\.){3}\d{1,3}"
_SERIAL = rf"(?=[0-9A-Z]*[A-Z])(?=[0-9A-Z]*[0-9])[0-9A-Z]{{{_SERIAL_SIZE}}}"
_SECRETS: Final = re.compile(
    rf"(?<![0-9a-zA-Z])(?:(?P<uuid>{_UUID})|(?P<mac>{_MAC})|(?P<serial>{_SERIAL}))(?![0-9a-zA-Z])"
    rf"|(?<![0-9a-zA-Z:.])(?:(?P<ipv6>{_IPV6})(?![0-9a-zA-Z:]|\.\d)|(?P<ipv4>{_IPV4})(?![0-9a-zA-Z]|\.\d))"
)
_SHORTEST_SERIAL: Final = 6
"""A shorter word would be found inside others that are no secret."""

_MASK: Final = bytes(byte if byte < ord(" ") else ord("x") for byte in range(256))


class Redactor:
    """Replaces secrets, and remembers which placeholder each got.

    Placeholders are of the secret's own kind: serials keep their length, addresses are from the
    ranges set aside for documentation. What is all zeros is a placeholder already and stays.
    """

    def __init__(self) -> None:
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._serials: dict[str, str] = {}  # upper case → placeholder
        self._serial_pattern: re.Pattern[str] | None = None

    def add_serial(self, serial: str) -> None:
        """Take a word for a serial number wherever it stands, whatever it looks like."""
        if len(serial) >= _SHORTEST_SERIAL and serial.strip("0") and serial.upper() not in self._serials:
            self._serials[serial.upper()] = self._placeholder("serial", serial.upper())
            words = sorted(self._serials, key=len, reverse=True)
            self._serial_pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)

    def text(self, text: str) -> str:
        """Text with placeholders for its secrets."""
        if self._serial_pattern:
            text = self._serial_pattern.sub(lambda match: self._serials[match[0].upper()], text)
        return _SECRETS.sub(self._replace, text)

    def uuid(self, raw: bytes) -> bytes:
        """A binary UUID: it gets the placeholder that its text gets."""
        if raw == NIL_UUID:
            return raw
        return uuid.UUID(self._placeholder("uuid", str(uuid.UUID(bytes=raw)))).bytes

    def data(self, data: bytes) -> bytes:
        """Data of a frame: as `text` where it is text; else as `mask` has it."""
        body, nul = (data[:-1], b"\0") if data.endswith(b"\0") else (data, b"")
        try:
            redacted = self.text(body.decode()).encode() + nul
        except UnicodeDecodeError:
            return mask(data)
        return redacted if len(redacted) <= DATA_SIZE else mask(data)

    def _replace(self, match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        found = match[0]
        if kind == "mac":
            return self._placeholder(kind, found.lower().replace("-", ":"), separator=found[2])
        if kind in {"ipv4", "ipv6"}:
            try:
                address = ipaddress.ip_address(found)
            except ValueError:
                return found
            return found if address.is_loopback or address.is_unspecified else self._placeholder(kind, str(address))
        return self._placeholder(kind, found.upper() if kind == "serial" else found.lower())

    def _placeholder(self, kind: str, secret: str, separator: str = ":") -> str:
        if not secret.strip("0-:"):
            return secret.replace(":", separator)
        if secret in self._placeholders.values():  # redacted before
            return secret.replace(":", separator) if kind == "mac" else secret
        key = (kind, secret)
        if key not in self._placeholders:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._placeholders[key] = _PLACEHOLDERS[kind](self._counts[kind], len(secret))
        made = self._placeholders[key]
        return made.replace(":", separator) if kind == "mac" else made


_PLACEHOLDERS: Final[dict[str, Callable[[int, int], str]]] = {
    "serial": lambda count, size: ("REDACTED" + str(count).zfill(max(size - len("REDACTED"), 1)))[-size:],
    "uuid": lambda count, _: str(uuid.UUID(int=(0x4000 << 64) | (0x8000 << 48) | count)),
    "mac": lambda count, _: "02:00:00:" + (count & 0xFFFFFF).to_bytes(3, "big").hex(":"),
    "ipv4": lambda count, _: f"192.0.2.{count}" if count < 255 else str(ipaddress.IPv4Address("198.18.0.0") + count),
    "ipv6": lambda count, _: str(ipaddress.IPv6Address("2001:db8::") + count),
}


def mask(data: bytes) -> bytes:
    """Bytes that aren't text, with x for each that isn't small: structure stays, pieces of secrets don't."""
    return data.translate(_MASK)


def redact(capture: Capture, redactor: Redactor | None = None) -> Capture:
    """A capture without its identities. Lengths in the headers follow the data.

    Args:
        capture: which; not changed.
        redactor: one to share among several captures of the same guest.
    """
    redactor = redactor or Redactor()
    for record in capture.records:
        if isinstance(record, FrameRecord) and record.frame.is_response and record.frame.command in _SERIAL_ANSWERS:
            redactor.add_serial(record.frame.data.rstrip(b"\0").decode(errors="replace"))
    header = attrs.evolve(capture.header, redacted=True, provenance=redactor.text(capture.header.provenance))
    return Capture(header, tuple(_redact_record(record, redactor) for record in capture.records))


def _redact_record(record: Record, redactor: Redactor) -> Record:
    if isinstance(record, SkippedRecord):
        return attrs.evolve(record, raw=mask(record.raw))
    frame = record.frame
    if record.refused:  # its fields may be anything, read out of step
        return attrs.evolve(record, frame=Frame.decode(mask(record.raw)))
    data = redactor.data(frame.data)
    lengths = {}
    if counted_length(frame.is_request, frame.is_response, frame.request_length, frame.response_length):
        lengths = {"request_length" if frame.is_request else "response_length": len(data)}
    return attrs.evolve(
        record,
        frame=Frame(
            **attrs.asdict(frame)
            | lengths
            | {"guest_uuid": redactor.uuid(frame.guest_uuid), "data": data, "padding": mask(frame.padding)}
        ),
    )
