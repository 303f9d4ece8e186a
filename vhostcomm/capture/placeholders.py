"""Placeholders for secrets: of the same kind as the secret, and one for each secret."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final

NUMBER_LIMIT: Final = 1 << 16
"""Numbers below this hold at most two bytes, so they are no secret and stay. Larger ones may be bytes of text or
addresses, and are replaced by smaller ones."""

_SERIAL: Final = "REDACTED"


class Placeholders:
    """Assigns a placeholder to each secret and remembers it.

    A value that looks like a placeholder stays. Call `reserve` for all values of the input before the first `of`, so
    that no secret gets a placeholder that is in use.
    """

    def __init__(self) -> None:
        self._assigned: dict[tuple[str, str], str] = {}
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(partial(count, 1))
        self._reserved: set[tuple[str, str]] = set()

    def reserve(self, kind: str, secret: str) -> None:
        """Mark a placeholder as used. A value that is no placeholder is ignored."""
        if is_placeholder(kind, secret):
            self._reserved.add((kind, secret))

    def of(self, kind: str, secret: str) -> str:
        """Return the placeholder of a secret. Harmless values stay: zeros, small numbers, loopback addresses, netmasks."""
        if is_placeholder(kind, secret):
            return secret
        if (kind, secret) not in self._assigned:
            candidates = (_MAKE[kind](number, len(secret)) for number in self._numbers[kind])
            self._assigned[kind, secret] = next(made for made in candidates if (kind, made) not in self._reserved)
        return self._assigned[kind, secret]


_MAKE: Final[dict[str, Callable[[int, int], str]]] = {
    "serial": lambda number, size: _SERIAL + str(number).zfill(size - len(_SERIAL)),
    "uuid": lambda number, _: str(uuid.UUID(int=(0x4000 << 64) | (0x8000 << 48) | number)),
    "mac": lambda number, size: (b"\x02" + number.to_bytes((size + 1) // len("00:") - 1, "big")).hex(":"),
    # Ranges reserved for documentation or future use: no host has such an address.
    "ipv4": lambda number, _: f"192.0.2.{number}" if number < 255 else str(ipaddress.IPv4Address("240.0.0.0") + number),
    "ipv6": lambda number, _: str(ipaddress.IPv6Address("2001:db8::") + number),
    "request_id": lambda number, _: str(number),
    "guest_id": lambda number, _: str(number),
}

_MADE: Final = {
    "serial": re.compile(f"{_SERIAL}[0-9]+"),
    "uuid": re.compile("00000000-0000-4000-8000-[0-9a-f]{12}"),
    "mac": re.compile("02(:00){3,}(:[0-9a-f]{2}){2}"),
}
_IPV4_MADE: Final = (ipaddress.IPv4Network("192.0.2.0/24"), ipaddress.IPv4Network("240.0.0.0/4"))
_IPV6_MADE: Final = ipaddress.IPv6Network("2001:db8::/32")


def is_placeholder(kind: str, secret: str) -> bool:
    """Return whether a value has the form of a placeholder, or identifies nobody (zeros, small numbers, loopback)."""
    if not secret.strip("0-:."):
        return True
    if kind in _MADE:
        return _MADE[kind].fullmatch(secret) is not None
    if kind in {"request_id", "guest_id"}:
        return int(secret) < NUMBER_LIMIT
    try:
        address = ipaddress.ip_address(secret)
    except ValueError:  # more than four numbers, any four of them an address
        return False
    if address.is_loopback:
        return True
    return address in _IPV6_MADE if address.version == 6 else any(address in network for network in _IPV4_MADE)
