"""The signals that end a program, reload its configuration or reopen its recordings."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

IGNORABLE: Final = (signal.SIGINT, signal.SIGHUP)
"""Signals that `nohup` ignores for a program, or a non-interactive shell for its background processes."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGUSR1 (reopen recordings), and those of SIGINT and SIGHUP that are not ignored now.

    A signal that was ignored when the program started stays ignored. Call this before anything changes handlers.
    """
    return signal.SIGTERM, signal.SIGUSR1, *(each for each in IGNORABLE if signal.getsignal(each) is not signal.SIG_IGN)


_deferring = False
_deferred: signal.Signals | None = None
"""A signal that came inside `deferred_end`."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C inside the block: an exception in the main thread, so that work is cleaned up.

    Raises:
        SystemExit: for SIGTERM and SIGHUP, with 128 + the signal's number. A second one is ignored.
        KeyboardInterrupt: for SIGINT.
    """
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, *IGNORABLE)}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(each, _end)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def deferred_end() -> Iterator[None]:
    """Defer the exceptions of `ended_by_signals` to the end of the block.

    Starting a program needs this: an exception after the fork would lose the child, which nobody would end.
    """
    global _deferring, _deferred  # noqa: PLW0603 - a process has one set of signal handlers
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread
        yield
        return
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        number, _deferred = _deferred, None
        if number is not None:
            _end(number, None)


def _end(number: int, _: FrameType | None) -> None:
    global _deferred  # noqa: PLW0603
    if _deferring:
        _deferred = signal.Signals(number)
        return
    signal.signal(number, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
