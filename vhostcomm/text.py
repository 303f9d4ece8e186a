"""Make untrusted text safe to show, and count things. Standard library only: every verb needs it, few need the log."""

from __future__ import annotations

from typing import Final

TEXT_LIMIT: Final = 200
"""Maximum characters of one value in a log message; a guest may send 4 KB of any text."""


def escape(text: str, limit: int = TEXT_LIMIT) -> str:
    """Escape text for a log or a terminal like `printable`, and shorten it to `limit` characters."""
    return printable(text if len(text) <= limit else text[: limit - 1] + "…")


def printable(text: str) -> str:
    """Escape newlines, control characters, marks that reverse text and lone surrogates. The result is one line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def counted(number: int, what: str) -> str:
    """Format a number with its noun, which is given in the singular and gets an s for all numbers but 1."""
    return f"{number} {what}{'' if number == 1 else 's'}"
