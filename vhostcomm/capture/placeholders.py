"""What stands for a secret: of its own kind, and the same one for the same secret."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final

NUMBER_LIMIT: Final = 1 << 16
"""Numbers below are no secret: two bytes of one at most. What stands for larger ones begins there."""

_SERIAL: Final = "REDACTED"


class Placeholders:
    """Remembers which placeholder each secret got.

    What looks like a placeholder is one: it stays. `reserve` those that are there before the first
    is given out, lest another secret get the same.
    """

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._taken: set[tuple[str, str]] = set()

    def reserve(self, kind: str, secret: str) -> None:
        """Note a placeholder that is in use; anything else is passed over."""
        if is_placeholder(kind, secret):
            self._taken.add((kind, secret))

    def of(self, kind: str, secret: str) -> str:
        """The placeholder of a secret; one that is none stays: zeros, loopback, a netmask."""
        if is_placeholder(kind, secret):
            return secret
        if (kind, secret) not in self._given:
            self._given[kind, secret] = self._next(kind, len(secret))
        return self._given[kind, secret]

    def _next(self, kind: str, size: int) -> str:
        while True:
            self._counts[kind] += 1
            made = _MAKE[kind](self._counts[kind], size)
            if (kind, made) not in self._taken:
                return made


_MAKE: Final[dict[str, Callable[[int, int], str]]] = {
    "serial": lambda count, size: _SERIAL + str(count).zfill(size - len(_SERIAL)),
    "uuid": lambda count, _: str(uuid.UUID(int=(0x4000 << 64) | (0x8000 << 48) | count)),
    "mac": lambda count, size: (b"\x02" + count.to_bytes((size + 1) // len("00:") - 1, "big")).hex(":"),
    # Ranges for documentation and reserved for ever: never anybody's.
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
    """Whether it is, or could be, one of `Placeholders`, or says nothing of anybody."""
    if not secret.strip("0-:."):
        return True
    if kind in _MADE:
        return _MADE[kind].fullmatch(secret) is not None
    try:
        address = ipaddress.ip_address(secret)
    except ValueError:  # a chain of numbers that has one in it
        return False
    if address.is_loopback:
        return True
    return address in _IPV6_MADE if address.version == 6 else any(address in network for network in _IPV4_MADE)


class Numbers:
    """Small numbers for large ones that may be bytes of anything; small ones stay."""

    def __init__(self) -> None:
        self._given: dict[int, int] = {}
        self._taken: set[int] = set()
        self._next = 1

    def reserve(self, number: int) -> None:
        """Note a small number that is in use."""
        if number < NUMBER_LIMIT:
            self._taken.add(number)

    def of(self, number: int) -> int:
        if number < NUMBER_LIMIT:
            return number
        if number not in self._given:
            while self._next in self._taken:
                self._next += 1
            self._given[number] = self._next
            self._next += 1
        return self._given[number]
