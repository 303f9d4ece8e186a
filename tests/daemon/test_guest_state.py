"""The state of a guest, as its frames show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.daemon.test_session import Ends, serving
from tests.trio_help import run
from vchannel import FRAME_SIZE, GuestCommand, HostCommand, Request
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.control.serialize import problem
from vhostcomm.guest.model import State


def states(test: Callable[[Ends], Any]) -> None:
    async def main() -> None:
        async with serving() as ends:
            await trio.testing.wait_all_tasks_blocked()
            await test(ends)

    run(main)


async def send(ends: Ends, command: int, data: bytes = b"", *, answer: bool = False) -> None:
    await ends.write(ends.connection.send(Request.of(command, data, needs_response=answer)))
    if answer:
        await ends.answers(1)
    await trio.testing.wait_all_tasks_blocked()


def test_the_first_frame_makes_a_guest_ready() -> None:
    async def main(ends: Ends) -> None:
        seen = [ends.guest.state]
        await send(ends, HostCommand.GUEST_TIMESTAMP, b"1648798789\0")
        seen.append(ends.guest.state)
        assert seen == [State.CONNECTED, State.READY]
        assert ends.guest.reported_time == 1648798789
        assert ends.guest.last_frame is not None
        assert ends.logged("guest ready")[0]["first"] == "17 GUEST_TIMESTAMP"

    states(main)


def test_a_reboot_is_seen() -> None:
    """Nothing happens on the socket: a start notification after questions shows the reboot."""

    async def main(ends: Ends) -> None:
        for boot in (1, 2):
            await send(ends, HostCommand.GUEST_POWER)
            await send(ends, HostCommand.GUEST_SERIAL, answer=True)
            await send(ends, HostCommand.GUEST_SERIAL, answer=True)
            assert ends.guest.boots == boot
            assert len(ends.logged("guest asked")) == boot, "each answer is logged once per boot"
        assert len(ends.logged("guest started")) == 1
        assert len(ends.logged("guest rebooted")) == 1

    states(main)


def test_a_late_start_notification_is_no_reboot() -> None:
    async def main(ends: Ends) -> None:
        await send(ends, HostCommand.GUEST_TIMESTAMP, b"1\0")
        await send(ends, HostCommand.GUEST_POWER)
        assert not ends.logged("guest rebooted")

    states(main)


def test_answers_are_remembered() -> None:
    async def main(ends: Ends) -> None:
        await send(ends, HostCommand.GUEST_UUID, answer=True)
        await send(ends, 77, answer=True)
        assert ends.guest.answered[11].text == "u"
        assert ends.guest.counts == {11: 1, 77: 1}
        assert 77 not in ends.guest.answered

    states(main)


def test_the_next_answer_has_the_changed_identity() -> None:
    async def main(ends: Ends) -> None:
        await ends.write(ends.ask())
        assert (await ends.answers(1))[0].text == "0" * 13
        ends.guest.change(HostIdentity(), GuestIdentity(serial="NEW4567890123"))
        await ends.write(ends.ask())
        assert (await ends.answers(1))[0].text == "NEW4567890123"
        assert [line["answer"] for line in ends.logged("guest asked")] == ["0" * 13, "NEW4567890123"]

    states(main)


def test_a_wall_clock_that_is_set_back_hides_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(ends: Ends) -> None:
        await send(ends, HostCommand.GUEST_SERIAL, answer=True)
        since = ends.guest.model.entered.wall
        monkeypatch.setattr("time.time", lambda: since - 86400)
        ends.guest.called(GuestCommand.GET_INFORMATION, "answered", b'{"data":{}}\0')
        assert ends.guest.information is not None
        assert ends.guest.information.received.wall < since
        assert problem(ends.guest) == "the guest is up, but has no address yet"

    states(main)


def test_a_repeated_event_is_logged_the_1st_10th_and_100th_time() -> None:
    async def main(ends: Ends) -> None:
        bad = b"\xff" * FRAME_SIZE
        for _ in range(250):
            await ends.write(bad + ends.ask())
            await ends.answers(1)
        assert [line["times"] for line in ends.logged("frame refused")] == [1, 10, 100]

    states(main)
