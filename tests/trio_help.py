"""Running trio in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar
from unittest.mock import patch

import trio
from trio.testing import MockClock

Async = Callable[..., Awaitable[Any]]
T = TypeVar("T")


def run(test: Async, *args: Any, thread_hangs: bool = False) -> Any:
    """Run with a clock that jumps ahead whenever all tasks wait: hours take no time, and the order is deterministic.

    The clock does not jump while a thread works, so a busy machine causes no timeout. With `thread_hangs`, it does jump.
    """
    clock = MockClock(autojump_threshold=0.02)
    in_thread, working = trio.to_thread.run_sync, 0

    async def holding_the_clock(*args: Any, **options: Any) -> Any:
        nonlocal working
        working += 1
        clock.autojump_threshold = inf
        try:
            return await in_thread(*args, **options)
        finally:
            working -= 1
            clock.autojump_threshold = inf if working else 0.02

    async def bounded() -> Any:
        with trio.fail_after(86400):
            return await test(*args)

    with patch.object(trio.to_thread, "run_sync", in_thread if thread_hangs else holding_the_clock):
        return trio.run(bounded, clock=clock)


def run_in_real_time(
    test: Callable[..., Awaitable[T]], *args: Any, limit: float = 60.0, clock: MockClock | None = None
) -> T:
    """Run with the real clock, for processes and sockets. After `limit` seconds, fail with a traceback of the hanging task.

    A test can pass a clock of rate 1, and let it skip a time limit as soon as the program waits for it.
    """

    async def bounded() -> T:
        with trio.fail_after(limit):
            return await test(*args)

    return trio.run(bounded, clock=clock)
