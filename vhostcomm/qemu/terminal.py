"""Our terminal, lent to a child that may be killed before it cleans up."""

from __future__ import annotations

import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

MODES: Final = (
    b"\x1b[?7h"  # lines wrap: SeaBIOS switches that off
    b"\x1b[?25h"  # the cursor is shown
    b"\x1b7\x1b[?1049l\x1b[?1047l"  # the normal screen; 1049 restores the cursor, so it is saved before
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l"  # the mouse is the terminal's own
    b"\x1b[?2004l"  # text is pasted without brackets
    b"\x1b[?1l\x1b>"  # the arrows and the keypad send what a shell expects
    b"\x1b[4l"  # what is typed replaces
    b"\x1b[0m\x1b(B\x0f"  # no colours, and letters for letters
    b"\x1b7\x1b[r\x1b8"  # the whole screen scrolls, the cursor stays
)
"""What firmware, a boot loader or a guest may have changed, as a shell expects it (xterm's control sequences)."""


@contextmanager
def lent_terminal() -> Iterator[tuple[int, int]]:
    """Standard input and output for a child, as descriptors; the terminal's settings and modes are put back afterwards.

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
        if os.isatty(writing) and not _in_background(writing):
            with suppress(OSError):  # closed, or a terminal that takes nothing: it is non-blocking now
                os.write(writing, MODES)
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
