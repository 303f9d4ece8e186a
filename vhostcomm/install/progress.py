"""The progress of an installation's steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

_INTERVAL: Final = 0.2
"""Seconds between two reports of a file's growth."""


@frozen
class Progress:
    """The progress of a step: bytes done and in total; both 0 if the step can't be measured."""

    step: str
    done: int = 0
    total: int = 0


ReportProgress = Callable[[Progress], None]


@contextmanager
def growth_reported(step: str, file: Path, total: int, report: ReportProgress) -> Iterator[None]:
    """Report how much space a file occupies, while a program in this block writes it.

    Args:
        step: the step's name.
        file: the file; it may not exist yet.
        total: expected bytes. The file may occupy more at the end, which is not reported.
        report: called from another thread inside the block.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            with suppress(OSError):  # the file isn't there yet; a closed output is found by the next step
                report(Progress(step, min(occupied(file), total), total))

    watcher = threading.Thread(target=watch)
    report(Progress(step, 0, total))
    try:
        watcher.start()  # here, because a signal can end the work at any moment
        yield
    finally:
        ended.set()
        if watcher.ident is not None:
            watcher.join()


def occupied(file: Path) -> int:
    """Return the bytes that a file occupies on its disk."""
    return file.stat().st_blocks * 512
