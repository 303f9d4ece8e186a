"""Prepare the standard streams of a program: open, able to print any text, with errors reported."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from vhostcomm.errors import VhostcommError
from vhostcomm.linux.system_errors import explain


class ReaderGoneError(VhostcommError):
    """The reader of standard output has closed it, as `| head` does. The program ends quietly."""

    exit_code = 0


def prepare() -> None:
    """Prepare all streams. Call this before anything else is opened."""
    _fill_closed()
    for name, kind in (("stdout", _Output), ("stderr", _Errors)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            made = io.TextIOWrapper(
                io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",  # a guest's text must not end a verb if the locale lacks its letters
                line_buffering=stream.line_buffering or stream.write_through or kind is _Errors,
            )
            setattr(sys, name, made)


def drop_output() -> None:
    """Redirect standard output to /dev/null: the rest of its buffer can't be written, which was already reported."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _fill_closed() -> None:
    """Open /dev/null for streams that were closed before the start; otherwise a socket could get their numbers.

    Standard output is opened for reading, so that a write fails as it would on the closed stream.
    """
    for fd, mode in enumerate((os.O_RDWR, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number: this one
            os.set_inheritable(fd, True)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = open(fd, "w" if fd else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, opened)
            setattr(sys, f"__{name}__", opened)


class _Output(io.FileIO):
    """Standard output, with errors for the user."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            # Not a BrokenPipeError, for which rich would exit with status 1.
            raise ReaderGoneError("standard output: its reader has closed it") from None
        except OSError as error:
            if error.errno == errno.EBADF:
                raise VhostcommError(
                    "standard output is closed, nothing can be printed; redirect it to a file, or to /dev/null"
                ) from None
            raise VhostcommError(f"standard output: {explain(error)}") from None


class _Errors(io.FileIO):
    """Standard error. Its own errors can't be reported anywhere, and must not change the exit status."""

    def write(self, data: object, /) -> int:
        with suppress(OSError):
            return super().write(data)  # type: ignore[arg-type]
        return len(memoryview(data))  # type: ignore[arg-type]
