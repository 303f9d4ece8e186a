"""Translate errors of the operating system for the user: what failed, where, why, and what to do."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from pathlib import Path
from typing import Final

from vhostcomm.errors import VhostcommError

NO_THREAD: Final = (
    "the system refused a new thread: raise the limit of processes (`ulimit -u`, TasksMax= of a unit, --pids-limit "
    "of a container); a container engine that denies clone3 must be updated, or run with "
    "--security-opt seccomp=unconfined"
)
"""Python hides the errno: EAGAIN at a limit, EPERM if a seccomp filter from before 2021 doesn't know clone3."""

_NO_PROCESS: Final = "raise the limit of processes: `ulimit -u`, TasksMax= of a unit, --pids-limit of a container"

_REMEDIES: Final = {
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.EFBIG: "raise the limit of a file's size: `ulimit -f`",
    errno.EROFS: "choose another place, or mount it writable",
    errno.EMFILE: "raise the limit of open files: `ulimit -n`, LimitNOFILE= of a unit",
    errno.ENFILE: "raise the system's limit of open files: sysctl fs.file-max",
    errno.ENOMEM: "give it more memory: `free -m` shows what there is",
    errno.EAGAIN: _NO_PROCESS,
    errno.EIO: "look for errors of the device: `dmesg`",
}


def explain(error: OSError) -> str:
    """Return why the system refused, and what to do if that is known."""
    why = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{why}; {remedy}" if remedy else why


def is_thread_refusal(error: BaseException) -> bool:
    """Return whether a thread couldn't be started. Python has no own exception for that."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def user_error(error: BaseException) -> VhostcommError | None:
    """Return the error to show for an exception that ends a program; None for a bug, which needs its traceback.

    For a group, this is the first error for the user in it.
    """
    match error:
        case VhostcommError():
            return error
        case BaseExceptionGroup():
            leaves = list(_leaves(error))
            shown = [each for each in leaves if isinstance(each, VhostcommError)]
            if shown:
                return shown[0]
            translated = [user_error(each) for each in leaves]
            return translated[0] if all(translated) else None
        case OSError():
            return VhostcommError(f"{error.filename or _place(error)}: {explain(error)}")
        case MemoryError():
            return VhostcommError(f"{_place(error)}: out of memory; {_REMEDIES[errno.ENOMEM]}")
        case RuntimeError() if is_thread_refusal(error):
            return VhostcommError(NO_THREAD)
        case _:
            return None


def temporary_folder() -> str:
    """Return the directory for temporary files.

    Raises:
        VhostcommError: no directory is writable.
    """
    try:
        return tempfile.gettempdir()
    except OSError:
        named = os.environ.get("TMPDIR")
        tried = f"{named} (TMPDIR), /tmp" if named else "/tmp"  # noqa: S108 - only shown
        raise VhostcommError(
            f"no usable temporary directory: {tried} and others are missing, full or read-only; "
            "set TMPDIR to a writable directory"
        ) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def _place(error: BaseException) -> str:
    """Return the source line that raised an error without a file name."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the system"
