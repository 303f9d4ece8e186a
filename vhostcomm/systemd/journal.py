"""systemd's journal as the place that a stream goes to. Standard library only: it is asked at every start."""

from __future__ import annotations

import os
from typing import Final

PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog's, by the names of our levels."""


def is_journal(fd: int) -> bool:
    """Whether a descriptor is the stream that systemd has connected to the journal.

    JOURNAL_STREAM alone doesn't say so: it is inherited by those whose output goes elsewhere.
    """
    told = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


def error_text(text: str) -> str:
    """What is told on standard error at the end: as it is, or for the journal as an error."""
    return with_priority("error", text) if is_journal(2) else text


def with_priority(level: str, text: str) -> str:
    """Lines as the journal takes them, each with its priority in front (sd-daemon(3))."""
    prefix = f"<{PRIORITIES.get(level, 6)}>"
    return "\n".join(prefix + line for line in text.split("\n"))
