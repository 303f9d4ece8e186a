"""Import structlog without rich. structlog imports an installed rich for a traceback style that the log doesn't use.

rich costs a third of the daemon's start time and a seventh of its memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make imports of a package fail inside the block, unless it is already imported."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # the import system's way to block a module
    try:
        yield
    finally:
        del sys.modules[package]


with _hidden("rich"):
    import structlog

__all__ = ["structlog"]
