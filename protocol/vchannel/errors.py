"""What vchannel raises, and at whom.

    VchannelError
    ├── MisuseError    the caller did something that can't work; the message says what to do instead
    └── PayloadError   data that was asked to be read as something it is not

Nothing that arrives through `Connection.receive_data` raises: a peer's mistakes are events.
"""

from __future__ import annotations


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


def shorten(value: object, limit: int = 80) -> str:
    """The `repr` of a value, cut to `limit` characters: a peer's text in a message stays one line.

    `repr` escapes control characters; what it leaves readable beyond ASCII is escaped too.
    """
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
