"""A guest that returns minutes later over a new connection, and asks nothing. The clock jumps."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.daemon.answering_guests import INFORMATION, IP, OFF, answer_all, connected, running
from tests.trio_help import run
from vchannel import Command
from vhostcomm.guest.model import PROBE_INTERVAL_MAX, PROBE_TIMEOUT, State

SAVED, IDLE = 1800.0, 1200.0
"""Seconds that the guest is saved in a file, and seconds without a question after the restore."""


@pytest.mark.parametrize("command", [IP, OFF])
def test_a_guest_that_was_saved_for_half_an_hour_is_found_up(tmp_path: Path, command: Command) -> None:
    async def main() -> None:
        asked_for: list[Command] = []
        async with running(tmp_path) as (ends, port, nursery):
            before = await trio.open_unix_socket(tmp_path / "guest")
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as life:
                life.start_soon(answer_all, before, asked_for)
                await port.asker.ask(IP, timeout=5)
                life.cancel_scope.cancel()
            asked_for.clear()
            await before.aclose()
            await trio.sleep(SAVED)
            states = [ends.guest.state]
            after = await trio.open_unix_socket(tmp_path / "guest")
            nursery.start_soon(answer_all, after, asked_for)
            await trio.sleep(IDLE)
            states.append(ends.guest.state)
            began = trio.current_time()
            await port.asker.ask(command, timeout=5)
            assert trio.current_time() - began < PROBE_TIMEOUT
            states.append(ends.guest.state)
            nursery.cancel_scope.cancel()
        await after.aclose()
        assert states == [State.ABSENT, State.CONNECTED, State.READY]
        assert asked_for == [INFORMATION, command]

    run(main)


def test_a_restore_that_takes_minutes_is_found_at_its_end(tmp_path: Path) -> None:
    """Health checks probe every 30 s meanwhile. QEMU queues the probes, and the guest answers them all at once."""

    async def main() -> None:
        asked_for: list[Command] = []
        async with connected(tmp_path) as (ends, port, nursery, stream):
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                port.asker.probe(30)
                await trio.sleep(30)
            states = [ends.guest.state]
            nursery.start_soon(answer_all, stream, asked_for)
            await port.asker.ask(OFF, timeout=PROBE_INTERVAL_MAX)
            states.append(ends.guest.state)
        assert states == [State.CONNECTED, State.READY]
        assert set(asked_for[:-1]) == {INFORMATION}
        assert asked_for[-1] is OFF

    run(main)
