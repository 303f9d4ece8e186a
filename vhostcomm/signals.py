"""The signals that end a program, reload its configuration or reopen its recordings."""

from __future__ import annotations

import signal
from typing import Final

IGNORABLE: Final = (signal.SIGINT, signal.SIGHUP)
"""Signals that `nohup` ignores for a program, or a non-interactive shell for its background processes."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGUSR1 (reopen recordings), and those of SIGINT and SIGHUP that are not ignored now.

    A signal that was ignored when the program started stays ignored. Call this before anything changes handlers.
    """
    return signal.SIGTERM, signal.SIGUSR1, *(each for each in IGNORABLE if signal.getsignal(each) is not signal.SIG_IGN)
