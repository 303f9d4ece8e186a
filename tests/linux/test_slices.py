"""Long work on the event loop lets other tasks run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import trio

from tests.trio_help import run
from vhostcomm.linux.threads import SLICE, in_slices

ITEMS = 5


def slow() -> Iterator[int]:
    """Yield items that each need a whole slice."""
    for item in range(ITEMS):
        end = time.perf_counter() + SLICE
        while time.perf_counter() < end:
            pass
        yield item


class Turns(trio.abc.Instrument):
    """A counter of the event loop's turns."""

    count = 0

    def after_io_wait(self, _: float) -> None:
        self.count += 1


def test_other_tasks_run_after_each_slice() -> None:
    async def main() -> None:
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        seen = [(item, turns.count) async for item in in_slices(slow())]
        assert [item for item, _ in seen] == [*range(ITEMS)]
        assert len({turn for _, turn in seen}) == ITEMS

    run(main)
