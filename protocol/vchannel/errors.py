"""What vchannel raises, and at whom.

    VchannelError
    ├── MisuseError    the caller did something that can't work; the message says what to do instead
    └── PayloadError   data that was asked to be read as something it is not

Nothing that arrives through `Connection.receive_data` raises: a peer's mistakes are events.
"""

from __future__ import annotations

import reprlib
from typing import Final


class VchannelError(Exception):
    """Every error of this package."""


class MisuseError(VchannelError, ValueError):
    """A mistake of the caller, never of the peer."""


class PayloadError(VchannelError, ValueError):
    """Data of a frame that can't be read as what it was taken for.

    `field` is the place in the payload (a dotted path, or ``data`` for the whole), `value` what
    stands there, shortened.
    """

    def __init__(self, field: str, value: object, why: str) -> None:
        self.field = field
        self.value = value
        self.why = why
        super().__init__(f"{field} is {shorten(value)}: {why}")


_BRIEF: Final = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxlong, _BRIEF.maxstring = 3, 10, 10, 80, 80
"""For what may be nested or long without end: the whole `repr` of 4 KB of JSON takes a millisecond."""


def shorten(value: object, limit: int = 80) -> str:
    """Cut the `repr` of a value to `limit` characters: a peer's text in a message stays one line.

    `repr` escapes control characters; what it leaves readable beyond ASCII is escaped too. Of long text only the
    beginning is looked at.
    """
    if isinstance(value, str | bytes):
        text = ascii(value[:limit])
    elif isinstance(value, dict | list):
        text = _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()
    else:
        text = ascii(value)
    cut = isinstance(value, str | bytes) and len(value) > limit
    return f"{text[: limit - 1]}…" if cut or len(text) > limit else text
