"""Turns of guests that cause much work: counted, on a clock that jumps. No test measures how long work takes."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
import trio
from trio.testing import MockClock

from tests.daemon.test_session import serving
from tests.trio_help import run
from vchannel import FRAME_SIZE
from vhostcomm.channel.throttle import ALONE, CREDIT, LANE_READ, QUESTIONS, READ, REST, SHARE, Lane, Throttle

WORK = CREDIT / 8
"""Seconds that a turn takes here."""

FAST = 1_000_000
"""A frame rate that throttles no guest."""


def throttled(lane: Lane) -> Throttle:
    """A guest that has used its credit up."""
    mine = Throttle(FAST, lane)
    while not mine.throttled:
        mine.ready()
        mine.turned(WORK)
    return mine


async def turn(mine: Throttle) -> bool:
    """A turn of a guest that always has more to read. Returns whether the lane rested for it."""
    rested = mine.ready() and await mine.enter()
    mine.turned(WORK)
    return rested


def test_a_flood_is_read_in_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another guest is served, the flood gets a tenth of the time, and all of its answers."""
    ticks = count(0, WORK)
    monkeypatch.setattr("vhostcomm.channel.throttle.thread_time", lambda: next(ticks))

    async def main() -> None:
        lane = Lane()
        async with serving(lane, frame_rate=FAST) as bad, serving(lane) as good, trio.open_nursery() as nursery:

            async def ask_now_and_then() -> None:
                while True:
                    await good.write(good.ask())
                    await good.answers(1)
                    await trio.sleep(ALONE / 2)

            frames = 400
            begin = trio.current_time()
            nursery.start_soon(ask_now_and_then)
            nursery.start_soon(bad.write, bad.ask(frames))
            await bad.answers(frames)
            nursery.cancel_scope.cancel()
            in_lane = frames * FRAME_SIZE - READ * (1 + int(CREDIT / WORK))
            assert trio.current_time() - begin >= (in_lane / LANE_READ - 1) * REST * WORK
            assert bad.ended is None
            assert bad.guest.throttled > 0
            assert len(bad.logged("guest causes too much work, reading more slowly")) > 0
            assert good.guest.throttled == 0

    run(main)


def test_a_guest_that_asks_and_waits_is_never_throttled() -> None:
    """Two hundred questions a second, however much work each of them is; twice as many are too much."""
    clock = MockClock()

    async def main() -> None:
        for often, is_throttled in (QUESTIONS, False), (2 * QUESTIONS, True):
            mine = Throttle(FAST, Lane())
            throttled = set()
            for _ in range(60 * often):
                mine.ready()
                mine.turned(WORK, FRAME_SIZE)
                throttled.add(mine.throttled)
                clock.jump(1 / often)
            assert (True in throttled) is is_throttled

    trio.run(main, clock=clock)


def test_more_than_a_question_at_once_is_work() -> None:
    async def main() -> None:
        mine = Throttle(FAST, Lane())
        for _ in range(2 * int(CREDIT / WORK)):
            mine.ready()
            mine.turned(WORK, FRAME_SIZE + 1)
        assert mine.throttled

    run(main)


def test_turns_in_the_lane_are_one_at_a_time_and_in_order() -> None:
    async def main() -> None:
        lane = Lane()
        good, flood = Throttle(FAST, lane), [throttled(lane) for _ in range(16)]
        turns: list[tuple[int, float]] = []

        async def send(name: int) -> None:
            for _ in range(5):
                good.ready()  # a guest outside the lane is served all the time
                await turn(flood[name])
                turns.append((name, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for name in range(16):
                nursery.start_soon(send, name)
        order = [name for name, _ in turns]
        assert len(set(order[:16])) == 16
        assert order == order[:16] * 5
        pauses = [after - before for (_, before), (_, after) in pairwise(turns)]
        assert min(pauses) >= REST * WORK * 0.999

    run(main)


def test_a_guest_alone_in_the_lane_has_its_turns_at_once() -> None:
    """No other guest waits, so the event loop need not go round for each turn."""

    async def main() -> None:
        lane = Lane()
        good, bad = Throttle(FAST, lane), throttled(lane)
        await turn(bad)
        for _ in range(100):
            assert not bad.ready()
            bad.turned(WORK)
        assert bad.throttled
        good.ready()
        assert bad.ready()  # the lane rests for another guest
        await bad.enter()
        bad.turned(WORK)
        await trio.sleep(ALONE)
        worse = throttled(lane)
        await turn(worse)
        assert bad.ready()  # the last turn was another's
        await bad.enter()
        bad.turned(WORK)

    run(main)


def test_the_lane_does_not_rest_without_other_guests() -> None:
    async def main() -> None:
        lane = Lane()
        good, bad = Throttle(FAST, lane), throttled(lane)
        begin = trio.current_time()
        assert not any([await turn(bad) for _ in range(100)])
        assert trio.current_time() == begin
        good.ready()
        assert await turn(bad)
        await trio.sleep(ALONE)
        assert not await turn(bad)

    run(main)


def test_a_guest_earns_credit_while_it_has_nothing_to_read() -> None:
    """A guest earns nothing while it waits for its turn, or while it is kept from sending."""

    async def main() -> None:
        lane = Lane()
        good, bad = Throttle(FAST, lane), throttled(lane)
        for _ in range(50):
            good.ready()
            await turn(bad)
        assert bad.throttled
        await trio.sleep(100 * CREDIT / SHARE)
        bad.waited()
        await turn(bad)
        assert bad.throttled
        await trio.sleep(3 * CREDIT / SHARE)
        assert not bad.ready()
        assert not bad.throttled

    run(main)


def test_a_guest_that_leaves_while_waiting_frees_the_lane() -> None:
    async def main() -> None:
        lane = Lane()
        good, gone, stays = Throttle(FAST, lane), throttled(lane), throttled(lane)
        await turn(stays)
        good.ready()
        with trio.move_on_after(REST * WORK / 2) as scope:
            await turn(gone)
        assert scope.cancelled_caught
        with trio.fail_after(REST * WORK):
            await turn(stays)

    run(main)
