"""Our terminal, lent to a child that may be killed before it cleans up."""

from __future__ import annotations

import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def lent_terminal() -> Iterator[tuple[int, int]]:
    """Standard input and output for a child, as descriptors; the terminal's settings are put back afterwards.

    QEMU makes what it gets non-blocking. That is a flag of the open file, not of the descriptor: were
    it shared, a print of ours would fail as soon as the terminal is slow. So the child gets its own.
    """
    reading = _reopen(0, os.O_RDONLY)
    writing = _reopen(1, os.O_WRONLY)
    settings = termios.tcgetattr(reading) if os.isatty(reading) else None
    try:
        yield reading, writing
    finally:
        if settings is not None and not _in_background(reading):
            with suppress(termios.error):  # it may have been closed meanwhile
                termios.tcsetattr(reading, termios.TCSANOW, settings)
        os.close(reading)
        os.close(writing)


def _in_background(terminal: int) -> bool:
    """Whether writing the terminal's settings would stop us (SIGTTOU); they are somebody else's by then."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it isn't the terminal that controls us
        return False


def _reopen(number: int, flags: int) -> int:
    """Another open file for a terminal or a pipe; for a regular file the same one, which has the position."""
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return os.open(f"/proc/self/fd/{number}", flags | os.O_NOCTTY)
    except OSError:  # a socket, or a terminal of another user (su)
        pass
    try:
        return os.dup(number)
    except OSError:  # closed
        return os.open(os.devnull, flags)
