"""systemd's journal as the destination of a stream. Standard library only, since every start needs it."""

from __future__ import annotations

import os
from typing import Final

PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog's priorities by the names of our levels."""


def is_journal(fd: int) -> bool:
    """Return whether systemd has connected a descriptor to the journal.

    The variable JOURNAL_STREAM alone is not enough: processes with another output inherit it too.
    """
    journal = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return journal == f"{found.st_dev}:{found.st_ino}"


def error_text(text: str) -> str:
    """Return an error for standard error, with a priority if that is the journal."""
    return with_priority("error", text) if is_journal(2) else text


def with_priority(level: str, text: str) -> str:
    """Prefix each line with its priority for the journal (sd-daemon(3))."""
    prefix = f"<{PRIORITIES.get(level, 6)}>"
    return "\n".join(prefix + line for line in text.split("\n"))
