"""Placeholders for secrets: of the same kind as the secret, and one for each secret."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final

NUMBER_LIMIT: Final = 1 << 16
"""Numbers below this hold at most two bytes, so they are no secret and stay. Larger ones are replaced."""

_SERIAL: Final = "REDACTED"


class Placeholders:
    """Assigns a placeholder to each secret and remembers it.

    A value that looks like a placeholder stays. Call `reserve` for all values of the input before the first `of`, so
    that no secret gets a placeholder that is in use.
    """

    def __init__(self) -> None:
        self._assigned: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._reserved: set[tuple[str, str]] = set()

    def reserve(self, kind: str, secret: str) -> None:
        """Mark a placeholder as used. A value that is no placeholder is ignored."""
        if is_placeholder(kind, secret):
            self._reserved.add((kind, secret))

    def of(self, kind: str, secret: str) -> str:
        """Return the placeholder of a secret. Harmless values stay: zeros, loopback addresses, netmasks."""
        if is_placeholder(kind, secret):
            return secret
        if (kind, secret) not in self._assigned:
            self._assigned[kind, secret] = self._next(kind, len(secret))
        return self._assigned[kind, secret]

    def _next(self, kind: str, size: int) -> str:
        while True:
            self._counts[kind] += 1
            made = _MAKE[kind](self._counts[kind], size)
            if (kind, made) not in self._reserved:
                return made


_MAKE: Final[dict[str, Callable[[int, int], str]]] = {
    "serial": lambda count, size: _SERIAL + str(count).zfill(size - len(_SERIAL)),
    "uuid": lambda count, _: str(uuid.UUID(int=(0x4000 << 64) | (0x8000 << 48) | count)),
    "mac": lambda count, size: (b"\x02" + count.to_bytes((size + 1) // len("00:") - 1, "big")).hex(":"),
    # Ranges reserved for documentation or future use: no host has such an address.
    "ipv4": lambda count, _: f"192.0.2.{count}" if count < 255 else str(ipaddress.IPv4Address("240.0.0.0") + count),
    "ipv6": lambda count, _: str(ipaddress.IPv6Address("2001:db8::") + count),
}

_MADE: Final = {
    "serial": re.compile(f"{_SERIAL}[0-9]+"),
    "uuid": re.compile("00000000-0000-4000-8000-[0-9a-f]{12}"),
    "mac": re.compile("02(:00){3,}(:[0-9a-f]{2}){2}"),
}
_IPV4_MADE: Final = (ipaddress.IPv4Network("192.0.2.0/24"), ipaddress.IPv4Network("240.0.0.0/4"))
_IPV6_MADE: Final = ipaddress.IPv6Network("2001:db8::/32")


def is_placeholder(kind: str, secret: str) -> bool:
    """Return whether a value has the form of a placeholder, or identifies nobody (zeros, loopback)."""
    if not secret.strip("0-:."):
        return True
    if kind in _MADE:
        return _MADE[kind].fullmatch(secret) is not None
    try:
        address = ipaddress.ip_address(secret)
    except ValueError:  # more than four numbers, any four of them an address
        return False
    if address.is_loopback:
        return True
    return address in _IPV6_MADE if address.version == 6 else any(address in network for network in _IPV4_MADE)


class Numbers:
    """Replaces large numbers, which may be bytes of text or addresses, by small ones. Small numbers stay."""

    def __init__(self) -> None:
        self._assigned: dict[int, int] = {}
        self._reserved: set[int] = set()
        self._next = 1

    def reserve(self, number: int) -> None:
        """Mark a small number as used."""
        if number < NUMBER_LIMIT:
            self._reserved.add(number)

    def of(self, number: int) -> int:
        if number < NUMBER_LIMIT:
            return number
        if number not in self._assigned:
            while self._next in self._reserved:
                self._next += 1
            self._assigned[number] = self._next
            self._next += 1
        return self._assigned[number]
