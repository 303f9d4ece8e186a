"""Becomes another program, one that is killed when its parent dies: PARENT-PID PROGRAM ARGUMENT…

A step between the supervisor and QEMU. A `preexec_fn` would do the same inside the forked copy of a
process with threads, where any lock may be held for ever; here it is a process of its own.
QEMU's `-run-with exit-with-parent=on` (since 10.2) asks for SIGTERM, which a stopped or hanging
QEMU doesn't heed, and doesn't look whether the parent is gone already: it would only weaken this.

Its text is run, with `python -I -S -c`, since vhostcomm may be in an archive: it may import nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""

CANNOT_EXECUTE = 126
"""The shell's exit status for a program that can't be executed."""


def main(parent: str, program: str, *arguments: str) -> NoReturn:
    """Execute a program. The exit status is 126 when that can't be done, with a line that says why."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        _fail(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # Only now: a parent that died before the prctl sends no signal any more.
    if os.getppid() != int(parent):
        _fail("the supervisor is gone")
    # Python ignores these, and what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        _fail(f"{program}: {error.strerror}")


def _fail(what: str) -> NoReturn:
    sys.stderr.write(f"vhostcomm: {what}\n")
    sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(*sys.argv[1:])
