"""The signals that end a program of ours, or have it reload or reopen its recordings."""

from __future__ import annotations

import signal
from typing import Final

IGNORABLE: Final = (signal.SIGINT, signal.SIGHUP)
"""What `nohup`, and a non-interactive shell for its background children, ignore on behalf of a program."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGUSR1 (reopen recordings), and of SIGINT and SIGHUP those not ignored now.

    A signal that was ignored when the program started stays ignored. Call this before anything changes handlers.
    """
    return signal.SIGTERM, signal.SIGUSR1, *(each for each in IGNORABLE if signal.getsignal(each) is not signal.SIG_IGN)
