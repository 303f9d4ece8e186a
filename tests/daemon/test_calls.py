"""Calls from the host to its guest, and how they can end."""

from __future__ import annotations

import pytest
import trio

from tests.daemon.answering_guests import outcome
from tests.daemon.test_session import Ends, serving
from tests.trio_help import run
from vchannel import NEED_DATA, Command, GuestCommand, Request, Response
from vhostcomm.channel.calls import OUTSTANDING_LIMIT, URGENT, CallError, Outcome


async def asked(ends: Ends, count: int = 1) -> list[Request]:
    """The host's requests, as the guest receives them."""
    found: list[Request] = []
    while len(found) < count:
        await trio.lowlevel.wait_readable(ends.sock)
        ends.connection.receive_data(ends.sock.recv(1 << 20))
        while (event := ends.connection.next_event()) is not NEED_DATA:
            if isinstance(event, Request):
                found.append(event)
    return found


def test_answers_may_come_in_any_order() -> None:
    async def main() -> None:
        answers: dict[GuestCommand, Response] = {}

        async def call(ends: Ends, command: GuestCommand) -> None:
            answers[command] = await ends.session.exchange(command, b"", 5)

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


def test_a_late_answer_is_ignored() -> None:
    async def main() -> None:
        async with serving() as ends:
            begin = trio.current_time()
            with pytest.raises(CallError, match="no answer to get_information within 5 s") as caught:
                await ends.session.exchange(GuestCommand.GET_INFORMATION, b"", 5)
            assert outcome(caught) is Outcome.TIMED_OUT
            assert trio.current_time() - begin == pytest.approx(5, abs=0.5)
            (question,) = await asked(ends)
            async with trio.open_nursery() as nursery:
                results: list[Response] = []

                async def again() -> None:
                    results.append(await ends.session.exchange(GuestCommand.GET_INFORMATION, b"", 5))

                nursery.start_soon(again)
                (second,) = await asked(ends)
                await ends.write(ends.connection.send(question.reply(b'"late"\0')))
                await ends.write(ends.connection.send(second.reply(b'"good"\0')))
            assert [each.text for each in results] == ['"good"']
            assert ends.logged("guest sent an unsolicited answer")[0]["why"].startswith("late")

    run(main)


def test_a_call_fails_when_its_connection_ends() -> None:
    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.exchange(GuestCommand.POWEROFF, b"", 60)
                assert outcome(caught) is Outcome.LOST

            nursery.start_soon(call)
            await asked(ends)
            ends.sock.close()

    run(main)


def test_calls_to_a_guest_that_never_reads_time_out_and_are_limited() -> None:
    async def main() -> None:
        async with serving(send_timeout=1) as ends, trio.open_nursery() as nursery:
            outcomes: list[Outcome] = []

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.exchange(GuestCommand.GET_IP, bytes(4000), 10)
                outcomes.append(outcome(caught))

            for _ in range(OUTSTANDING_LIMIT + 5):
                nursery.start_soon(call)
        assert sorted(each.name for each in outcomes) == ["BUSY"] * 5 + ["TIMED_OUT"] * OUTSTANDING_LIMIT

    run(main)


@pytest.mark.parametrize("urgent_first", [False, True])
def test_urgent_and_ordinary_calls_take_no_room_from_each_other(urgent_first: bool) -> None:
    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:
            ordinary: list[Command] = [GuestCommand.GET_IP] * OUTSTANDING_LIMIT
            urgent = (sorted(URGENT) * OUTSTANDING_LIMIT)[:OUTSTANDING_LIMIT]
            for command in urgent + ordinary if urgent_first else ordinary + urgent:
                nursery.start_soon(ends.session.exchange, command, b"", 600)
            await trio.testing.wait_all_tasks_blocked()
            for command in GuestCommand.GET_IP, *URGENT:
                with pytest.raises(CallError, match=f"{OUTSTANDING_LIMIT} calls already wait") as caught:
                    ends.session.check_room(command)
                assert outcome(caught) is Outcome.BUSY
            nursery.cancel_scope.cancel()

    run(main)


def test_time_before_a_call_is_sent_counts() -> None:
    """The message names the whole timeout, not the part that was left."""

    async def main() -> None:
        async with serving() as ends:
            start = trio.current_time()
            with pytest.raises(CallError, match="no answer to get_ip within 10 s"):
                await ends.session.exchange(GuestCommand.GET_IP, b"", 10, begun=trio.current_time() - 4)
            assert trio.current_time() - start == pytest.approx(6, abs=0.5)

    run(main)


def test_calls_that_wait_to_be_sent_fail_when_the_connection_ends() -> None:
    """The guest reads nothing, so each call waits for its turn to write."""

    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:
            outcomes: list[Outcome] = []

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.exchange(GuestCommand.GET_IP, bytes(4000), 600)
                outcomes.append(outcome(caught))

            ends.fill()
            for _ in range(5):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            ends.sock.close()
        assert outcomes == [Outcome.LOST] * 5

    run(main)
