"""Import structlog without rich. structlog imports an installed rich for a traceback style that the log doesn't use.

rich costs a third of the daemon's start time and a seventh of its memory.
"""

from __future__ import annotations

import sys

_rich: object = sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # the import system's way to block it
try:
    import structlog
finally:
    if _rich is None:
        del sys.modules["rich"]

__all__ = ["structlog"]
