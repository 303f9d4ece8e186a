"""The exceptions of vchannel.

    VchannelError
    ├── MisuseError    a mistake of the caller; the message says what to do instead
    └── PayloadError   data that is not of the expected type

No data passed to `Connection.receive_data` raises an exception: mistakes of the peer are events.
"""

from __future__ import annotations

import reprlib
from typing import Final


class VchannelError(Exception):
    """The base class of all errors of this package."""


class MisuseError(VchannelError, ValueError):
    """A mistake of the caller, never of the peer."""


class PayloadError(VchannelError, ValueError):
    """The data of a frame is not of the expected type.

    `field` is the place in the payload (a dotted path, or ``data`` for the whole), `value` the value there, shortened.
    """

    def __init__(self, field: str, value: object, why: str) -> None:
        self.field = field
        self.value = value
        self.why = why
        super().__init__(f"{field} is {shorten(value)}: {why}")


_BRIEF: Final = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxlong, _BRIEF.maxstring = 3, 10, 10, 80, 80
"""Limits for nested or long values: the whole `repr` of 4 KB of JSON takes a millisecond."""


def shorten(value: object, limit: int = 80) -> str:
    """Shorten the `repr` of a value to `limit` characters, so that a peer's text in a message stays on one line.

    `repr` escapes control characters; other characters outside ASCII are escaped too. Only the beginning of a long text
    is processed.
    """
    if isinstance(value, str | bytes):
        text = ascii(value[:limit])
    elif isinstance(value, dict | list):
        text = _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()
    else:
        text = ascii(value)
    return f"{text[: limit - 1]}…" if len(text) > limit else text
