"""The standard streams of the command line: there, able to print anything, and with errors that are told."""

from __future__ import annotations

import io
import os
import sys

from vhostcomm.errors import VhostcommError


def prepare() -> None:
    """Before anything else is opened."""
    _fill_closed()
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors="backslashreplace",  # a guest's text must not end a verb in a locale without its letters
            line_buffering=sys.stdout.line_buffering or sys.stdout.write_through,
        )


def drop_output() -> None:
    """Standard output goes nowhere from here on: what is left to be written can't be, and that has been told."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _fill_closed() -> None:
    """Streams that were closed before we were started go nowhere: else a socket would get a number of theirs."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(fd, True)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


class _Output(io.FileIO):
    """Standard output. An error of it is the user's to know; a pipe that nobody reads any more is none."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise VhostcommError(f"standard output: {error.strerror}") from None
