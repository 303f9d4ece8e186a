"""The debt of a thaw after a freeze was sent, and its file, which survives the daemon."""

from __future__ import annotations

import json
from typing import Final

from attrs import frozen

from vhostcomm.guest.evidence import Moment

FILE_MAX: Final = 4096
"""Maximum bytes of a debt's file; a longer file is not ours."""


@frozen
class Debt:
    """A thaw that is owed: a freeze was sent, and no thaw has been answered since.

    Args:
        number: of the last freeze, counted for this guest; 0 for a freeze that an earlier daemon sent.
        by: the client that requested that freeze.
        since: when it was sent.
        until: when the thaw is due.
        why: the reason for that time.
        host: the host of the cluster that sent the freeze; empty for this one.
    """

    number: int
    by: str
    since: Moment
    until: Moment
    why: str = "its time is over"
    host: str = ""


def format_debt(guest: str, debt: Debt) -> bytes:
    """Format a debt for its file: a JSON object with times in seconds since 1970."""
    value = {"guest": guest, "by": debt.by, "frozen": debt.since.wall, "until": debt.until.wall}
    return json.dumps(value).encode() + b"\n"


def parse_debt(data: bytes, now: Moment) -> Debt:
    """Parse a debt's file. The thaw is due now, because the client may have gone with the earlier daemon.

    Raises:
        ValueError: the file is invalid.
    """
    try:
        value = json.loads(data) if len(data) <= FILE_MAX else None
    except (ValueError, RecursionError):
        value = None
    by, since = (value.get("by"), value.get("frozen")) if isinstance(value, dict) else (None, None)
    if not isinstance(by, str) or isinstance(since, bool) or not isinstance(since, int | float):
        raise ValueError("it is not the record of a freeze")  # noqa: TRY004 - a mistake in a value, not in a program
    if not 0 <= since < FOREVER:
        raise ValueError(f"the time {since!r:.40} is out of range")
    return Debt(0, by, Moment(now.at, float(since)), now, "a daemon before this one froze it")


FOREVER: Final = 253_402_300_800.0
"""The year 10000, in seconds since 1970: later times can't be shown, and are invalid."""
