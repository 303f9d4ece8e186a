"""structlog without rich, which it imports where it is installed, for tracebacks in a style that the log doesn't use.

rich is a third of the daemon's start and a seventh of its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail inside, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # the import system's own way to say so
    try:
        yield
    finally:
        del sys.modules[package]


with _hidden("rich"):
    import structlog

__all__ = ["structlog"]
