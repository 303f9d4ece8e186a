"""Execute another program that is killed when its parent dies: PARENT-PID PROGRAM ARGUMENT…

This is a step between the supervisor and QEMU. A `preexec_fn` would do the same in the forked copy of a process with
threads, where a lock may be held for ever; this step has its own process. QEMU's `-run-with exit-with-parent=on` (since
10.2) is weaker: it requests SIGTERM, which a stopped or hanging QEMU ignores, and does not check whether the parent has
already died.

`child` passes this text to `python -I -S -c`, because vhostcomm may be inside an archive. So it imports only the
standard library.
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
    """Execute a program. If that fails, print the reason and exit with status 126."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        _fail(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # Check only now: a parent that died before the prctl sends no signal.
    if os.getppid() != int(parent):
        _fail("the supervisor is gone")
    # Python ignores these signals, and ignored signals stay ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606 - no shell on purpose
    except OSError as error:
        _fail(f"{program}: {error.strerror}")


def _fail(what: str) -> NoReturn:
    sys.stderr.write(f"vhostcomm: {what}\n")
    sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(*sys.argv[1:])
