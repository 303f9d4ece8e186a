"""Lend the terminal to a child that may be killed before it cleans up."""

from __future__ import annotations

import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

MODES: Final = (
    b"\x1b[?7h"  # wrap lines, which SeaBIOS turns off
    b"\x1b[?25h"  # show the cursor
    b"\x1b7\x1b[?1049l\x1b[?1047l"  # the normal screen; 1049 restores the cursor, so save it before
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l"  # no mouse reports
    b"\x1b[?2004l"  # no bracketed paste
    b"\x1b[?1l\x1b>"  # arrows and keypad as a shell expects them
    b"\x1b[4l"  # no insert mode
    b"\x1b[0m\x1b(B\x0f"  # default colours and character set
    b"\x1b7\x1b[r\x1b8"  # scroll the whole screen; keep the cursor
)
"""Reset the modes that firmware, a boot loader or a guest may have changed (xterm's control sequences)."""


@contextmanager
def lent_terminal() -> Iterator[tuple[int, int]]:
    """Provide standard input and output for a child, as descriptors, and restore the terminal at the end.

    QEMU makes its descriptors non-blocking. That is a flag of the open file, not of the descriptor. If the child shared
    the open file, our own prints would fail whenever the terminal is slow, so the child gets another one.
    """
    reading = _reopen(0, os.O_RDONLY)
    writing = _reopen(1, os.O_WRONLY)
    settings = termios.tcgetattr(reading) if os.isatty(reading) else None
    try:
        yield reading, writing
    finally:
        if settings is not None and not _in_background(reading):
            with suppress(termios.error):  # closed meanwhile
                termios.tcsetattr(reading, termios.TCSANOW, settings)
        if os.isatty(writing) and not _in_background(writing):
            with suppress(OSError):  # closed, or full: it is non-blocking now
                os.write(writing, MODES)
        os.close(reading)
        os.close(writing)


def _in_background(terminal: int) -> bool:
    """Return whether setting the terminal would stop this process (SIGTTOU); another process uses the terminal then."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # not our controlling terminal
        return False


def _reopen(number: int, flags: int) -> int:
    """Open a terminal or pipe again. Duplicate a regular file instead, to share its position."""
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return os.open(f"/proc/self/fd/{number}", flags | os.O_NOCTTY)
    except OSError:  # a socket, or a terminal of another user (su)
        pass
    try:
        return os.dup(number)
    except OSError:  # closed
        return os.open(os.devnull, flags)
