"""Running trio in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

Async = Callable[..., Awaitable[Any]]
T = TypeVar("T")


def run(test: Async, *args: Any) -> Any:
    """Run with a clock that jumps ahead whenever nothing can happen: hours take no time, and nothing races."""

    async def bounded() -> Any:
        with trio.fail_after(86400):
            return await test(*args)

    return trio.run(bounded, clock=MockClock(autojump_threshold=0.02))


def run_in_real_time(
    test: Callable[..., Awaitable[T]], *args: Any, limit: float = 60.0, clock: MockClock | None = None
) -> T:
    """Run with the real clock, for processes and sockets; after `limit` seconds it fails with the trace of where it hangs.

    A clock of rate 1 that the test has can skip a time limit, once the program waits for it.
    """

    async def bounded() -> T:
        with trio.fail_after(limit):
            return await test(*args)

    return trio.run(bounded, clock=clock)
