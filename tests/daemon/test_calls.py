"""What the host asks its guest, and how it can end."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.daemon.test_session import Ends, serving
from tests.trio_help import run
from vchannel import NEED_DATA, GuestCommand, HostCommand, Request, Response
from vhostcomm.address import Listen
from vhostcomm.channel.calls import OUTSTANDING_LIMIT, CallError, Outcome
from vhostcomm.channel.port import Port
from vhostcomm.config import Service


async def asked(ends: Ends, count: int = 1) -> list[Request]:
    """What the host asks, as its guest gets it."""
    found: list[Request] = []
    while len(found) < count:
        await trio.lowlevel.wait_readable(ends.sock)
        ends.connection.receive_data(ends.sock.recv(1 << 20))
        while (event := ends.connection.next_event()) is not NEED_DATA:
            if isinstance(event, Request):
                found.append(event)
    return found


def outcome(caught: pytest.ExceptionInfo[CallError]) -> Outcome:
    return caught.value.outcome


def test_asked_and_answered_in_any_order() -> None:
    async def main() -> None:
        answers: dict[GuestCommand, Response] = {}

        async def call(ends: Ends, command: GuestCommand) -> None:
            answers[command] = await ends.session.call(command, b"", 5)

        async with serving() as ends, trio.open_nursery() as nursery:
            commands = [GuestCommand.GET_IP, GuestCommand.GET_UPTIME, GuestCommand.GET_IP]
            for command in commands:
                nursery.start_soon(call, ends, command)
            questions = await asked(ends, 3)
            assert len({each.request_id for each in questions}) == 3
            for question in reversed(questions):
                await ends.write(
                    ends.connection.send(question.reply(GuestCommand(question.command).name.encode() + b"\0"))
                )
        assert {command: answer.text for command, answer in answers.items()} == {
            GuestCommand.GET_IP: "GET_IP",
            GuestCommand.GET_UPTIME: "GET_UPTIME",
        }

    run(main)


def test_no_answer_in_time_and_a_late_one() -> None:
    async def main() -> None:
        async with serving() as ends:
            begin = trio.current_time()
            with pytest.raises(CallError, match="no answer within 5 s") as caught:
                await ends.session.call(GuestCommand.GET_INFORMATION, b"", 5)
            assert outcome(caught) is Outcome.TIMED_OUT
            assert trio.current_time() - begin == pytest.approx(5, abs=0.5)
            (question,) = await asked(ends)
            async with trio.open_nursery() as nursery:
                results: list[Response] = []

                async def again() -> None:
                    results.append(await ends.session.call(GuestCommand.GET_INFORMATION, b"", 5))

                nursery.start_soon(again)
                (second,) = await asked(ends)
                await ends.write(ends.connection.send(question.reply(b'"late"\0')))
                await ends.write(ends.connection.send(second.reply(b'"good"\0')))
            assert [each.text for each in results] == ['"good"']
            assert ends.logged("guest answered what nobody waits for")[0]["why"].startswith("late")

    run(main)


def test_the_connection_ends_meanwhile() -> None:
    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.call(GuestCommand.POWEROFF, b"", 60)
                assert outcome(caught) is Outcome.LOST

            nursery.start_soon(call)
            await asked(ends)
            ends.sock.close()

    run(main)


def test_a_guest_that_never_reads_times_out_and_is_not_asked_without_end() -> None:
    async def main() -> None:
        async with serving(send_timeout=1) as ends, trio.open_nursery() as nursery:
            outcomes: list[Outcome] = []

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.call(GuestCommand.GET_IP, bytes(4000), 10)
                outcomes.append(outcome(caught))

            for _ in range(OUTSTANDING_LIMIT + 5):
                nursery.start_soon(call)
        assert sorted(each.name for each in outcomes) == ["BUSY"] * 5 + ["TIMED_OUT"] * OUTSTANDING_LIMIT

    run(main)


def test_only_a_ready_guest_is_asked(tmp_path: Any) -> None:
    """What is asked of one that isn't there isn't kept to surprise it later."""

    async def main() -> None:
        ends = Ends(Service())
        ends.guest.address = Listen(tmp_path / "guest")
        port = Port(ends.guest, Service())
        port.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            with pytest.raises(CallError, match="QEMU is not connected") as caught:
                await port.call(GuestCommand.POWEROFF, timeout=1)
            assert outcome(caught) is Outcome.NOT_CONNECTED
            stream = await trio.open_unix_socket(tmp_path / "guest")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallError, match="has not asked anything since its boot") as caught:
                await port.call(GuestCommand.POWEROFF, timeout=1)
            assert outcome(caught) is Outcome.NOT_READY
            await stream.send_all(Request.of(HostCommand.GUEST_POWER, needs_response=False).raw)
            with trio.move_on_after(1) as quiet:
                await stream.receive_some()
            assert quiet.cancelled_caught, "nothing was kept for it"
            with pytest.raises(CallError) as caught:
                await port.call(GuestCommand.POWEROFF, timeout=1)
            assert outcome(caught) is Outcome.TIMED_OUT
            # Its machine is reset: not ready again.
            ends.guest.restarted()
            with pytest.raises(CallError) as caught:
                await port.call(GuestCommand.POWEROFF, timeout=1)
            assert outcome(caught) is Outcome.NOT_READY
            await stream.aclose()
            port.stop()
        ends.sock.close()
        ends.session._finish()

    run(main)
