"""What the host asks its guest, and how it can end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.daemon.test_session import Ends, serving
from tests.trio_help import run
from vchannel import NEED_DATA, Command, Connection, GuestCommand, HostCommand, Request, Response, Role
from vhostcomm.channel.calls import OUTSTANDING_LIMIT, URGENT, CallError, Outcome
from vhostcomm.channel.port import Port
from vhostcomm.config.address import Listen
from vhostcomm.config.models import Service
from vhostcomm.guest import HEARD_RECENTLY, PROBE_TIMEOUT, State
from vhostcomm.guest.questions import SETTLE


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


def test_no_answer_in_time_and_a_late_one() -> None:
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
            assert ends.logged("guest answered what nobody waits for")[0]["why"].startswith("late")

    run(main)


def test_the_connection_ends_meanwhile() -> None:
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


def test_a_guest_that_never_reads_times_out_and_is_not_asked_without_end() -> None:
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
                with pytest.raises(CallError, match=f"{OUTSTANDING_LIMIT} calls wait") as caught:
                    ends.session.check_room(command)
                assert outcome(caught) is Outcome.BUSY
            nursery.cancel_scope.cancel()

    run(main)


def test_time_that_is_over_when_a_call_is_sent_counts() -> None:
    """The message names the time that was asked for, and not what was left of it."""

    async def main() -> None:
        async with serving() as ends:
            start = trio.current_time()
            with pytest.raises(CallError, match="no answer to get_ip within 10 s"):
                await ends.session.exchange(GuestCommand.GET_IP, b"", 10, begun=trio.current_time() - 4)
            assert trio.current_time() - start == pytest.approx(6, abs=0.5)

    run(main)


def test_the_connection_ends_while_calls_wait_to_be_sent() -> None:
    """Of a guest that reads nothing, so that each waits for its turn to write."""

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


@contextmanager
def opened(where: Path) -> Iterator[tuple[Ends, Port]]:
    """A guest's port that isn't run yet."""
    ends = Ends(Service())
    ends.guest.address = Listen(where)
    port = Port(ends.guest, Service())
    port.open()
    try:
        yield ends, port
    finally:
        ends.sock.close()
        ends.session._finish()


async def answer_all(stream: trio.SocketStream, asked_for: list[Command], *, after: float = 0.0) -> None:
    """A guest that answers everything, each question so many seconds after it came."""
    guest = Connection(Role.GUEST)
    async for data in stream:
        guest.receive_data(data)
        while (event := guest.next_event()) is not NEED_DATA:
            assert isinstance(event, Request)
            asked_for.append(event.command)
            await trio.sleep(after)
            await stream.send_all(guest.send(event.reply(b"{}\0")))


INFORMATION, IP, OFF = GuestCommand.GET_INFORMATION, GuestCommand.GET_IP, GuestCommand.POWEROFF


def commands(sent: bytes) -> list[object]:
    """What frames ask."""
    guest = Connection(Role.GUEST)
    guest.receive_data(sent)
    return [getattr(each, "command", each) for each in iter(guest.next_event, NEED_DATA)]


def test_a_guest_that_is_not_up_is_asked_something_harmless_only(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                await trio.sleep(SETTLE)
                with pytest.raises(CallError, match="QEMU is not connected") as caught:
                    await port.asker.ask(OFF, timeout=90)
                assert outcome(caught) is Outcome.NOT_CONNECTED
                assert trio.current_time() - ends.guest.model.entered.at == pytest.approx(SETTLE, abs=0.5), "at once"
                stream = await trio.open_unix_socket(tmp_path / "guest")
                await trio.testing.wait_all_tasks_blocked()
                for command, timeout in (GuestCommand.FS_FREEZE, 60.0), (77, 60.0), (IP, 60.0), (OFF, 20.0):
                    began = trio.current_time()
                    with pytest.raises(CallError, match="does not answer") as caught:
                        await port.asker.ask(command, timeout=timeout)
                    assert outcome(caught) is Outcome.NOT_READY
                    assert trio.current_time() - began <= (PROBE_TIMEOUT if command is not OFF else 20.0) + 0.5
                assert ends.guest.stop is None
                port.stop()
            sent = bytearray()
            async for data in stream:
                sent += data
            await stream.aclose()
        assert set(commands(bytes(sent))) == {INFORMATION}

    run(main)


def test_a_guest_that_was_up_before_us_is_found_whatever_the_age_of_its_qemu(tmp_path: Path) -> None:
    """As after a restart of the daemon, a restore, a migration: nothing needs to be asked by the guest first."""

    async def main() -> None:
        asked_for: list[Command] = []
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                nursery.start_soon(answer_all, stream, asked_for)
                await trio.testing.wait_all_tasks_blocked()
                async with trio.open_nursery() as several:
                    for _ in range(3):
                        several.start_soon(partial(port.asker.ask, IP, timeout=5))
                await port.asker.ask(OFF, timeout=5)
                assert ends.guest.state is State.READY
                nursery.cancel_scope.cancel()
            await stream.aclose()
        assert asked_for == [INFORMATION, IP, IP, IP, OFF]

    run(main)


@pytest.mark.parametrize("command", [OFF, GuestCommand.REBOOT, GuestCommand.FS_FREEZE, GuestCommand.RESET, 77])
def test_what_could_do_harm_goes_to_a_guest_that_was_heard_lately(tmp_path: Path, command: Command) -> None:
    async def main() -> None:
        asked_for: list[Command] = []
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                nursery.start_soon(answer_all, stream, asked_for)
                await trio.testing.wait_all_tasks_blocked()
                await port.asker.ask(IP, timeout=5)
                await port.asker.ask(command, timeout=5)
                await trio.sleep(HEARD_RECENTLY + 1)
                await port.asker.ask(command, timeout=5)
                # Its machine is reset: what was heard before counts no more.
                ends.guest.machine_reset(by_guest=False)
                await port.asker.ask(command, timeout=5)
                nursery.cancel_scope.cancel()
            await stream.aclose()
        assert asked_for == [INFORMATION, IP, command, INFORMATION, command, INFORMATION, command]

    run(main)


def test_a_stop_waits_for_a_guest_that_boots_within_its_own_time(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                asked_for: list[Command] = []

                async def boot() -> None:
                    await trio.sleep(40)
                    await stream.send_all(Request.of(HostCommand.GUEST_POWER, needs_response=False).raw)
                    await answer_all(stream, asked_for)

                nursery.start_soon(boot)
                with pytest.raises(CallError, match="does not answer within 30 s"):
                    await port.asker.ask(OFF, timeout=30)
                await port.asker.ask(OFF, timeout=90)
                assert 40 <= trio.current_time() - ends.guest.model.entered.at + 40 < 45
                nursery.cancel_scope.cancel()
            await stream.aclose()
        assert asked_for[-1] is OFF
        assert asked_for.count(OFF) == 1, "the stop whose time was over is not carried out"

    run(main)


def test_a_stop_waits_for_a_qemu_that_reconnects(tmp_path: Path) -> None:
    async def main() -> None:
        with opened(tmp_path / "guest") as (_, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                asked_for: list[Command] = []

                async def reconnect() -> None:
                    await trio.sleep(1)
                    stream = await trio.open_unix_socket(tmp_path / "guest")
                    async with stream:
                        await answer_all(stream, asked_for)

                nursery.start_soon(reconnect)
                await port.asker.ask(OFF, timeout=10)
                nursery.cancel_scope.cancel()
        assert asked_for == [INFORMATION, OFF]

    run(main)


def test_a_late_answer_proves_that_the_guest_is_up(tmp_path: Path) -> None:
    """Such as the answer to a question that was sent before a migration's end."""

    async def main() -> None:
        asked_for: list[Command] = []
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                nursery.start_soon(partial(answer_all, stream, asked_for, after=PROBE_TIMEOUT + 0.5))
                await port.asker.ask(OFF, timeout=60)
                assert ends.guest.state is State.READY
                nursery.cancel_scope.cancel()
            await stream.aclose()
        assert asked_for == [INFORMATION, OFF]

    run(main)


def test_a_silent_guest_is_probed_less_and_less_and_for_ever(tmp_path: Path) -> None:
    """A probe whose asker has no time goes on, and several askers share one."""

    async def main() -> None:
        with opened(tmp_path / "guest") as (_, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(5):
                    with pytest.raises(CallError, match="does not answer"):
                        await port.asker.ask(OFF, timeout=0.01)
                sent: list[float] = []
                nursery.start_soon(take_times, stream, sent)
                with pytest.raises(CallError, match="does not answer"):
                    await port.asker.ask(OFF, timeout=600)
                nursery.cancel_scope.cancel()
            await stream.aclose()
        gaps = [later - earlier for earlier, later in pairwise(sent)]
        assert gaps == sorted(gaps)
        assert gaps[0] == pytest.approx(PROBE_TIMEOUT + 1, abs=0.5)
        assert gaps[-1] == pytest.approx(PROBE_TIMEOUT + 60, abs=0.5)
        assert len(sent) == pytest.approx(13, abs=2)

    run(main)


async def take_times(stream: trio.SocketStream, sent: list[float]) -> None:
    async for data in stream:
        sent += [trio.current_time()] * (len(data) // 4096)


def test_a_paused_machine_is_asked_nothing_but_a_thaw(tmp_path: Path) -> None:
    async def main() -> None:
        asked_for: list[Command] = []
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                nursery.start_soon(answer_all, stream, asked_for)
                await trio.testing.wait_all_tasks_blocked()
                await port.asker.ask(IP, timeout=5)
                ends.guest.machine_paused("disk data: No space left on device", "vhostcomm resume nas")
                assert ends.guest.state is State.PAUSED
                for command in OFF, IP, INFORMATION:
                    with pytest.raises(
                        CallError, match=r"paused: disk data: No space left.*; vhostcomm resume"
                    ) as caught:
                        await port.asker.ask(command, timeout=30)
                    assert outcome(caught) is Outcome.PAUSED
                await port.asker.ask(GuestCommand.FS_UNFREEZE, timeout=5)
                ends.guest.machine_resumed()
                await port.asker.ask(OFF, timeout=5)
                nursery.cancel_scope.cancel()
            await stream.aclose()
        thaw = GuestCommand.FS_UNFREEZE
        assert asked_for in ([INFORMATION, IP, thaw, OFF], [INFORMATION, IP, thaw, INFORMATION, OFF])

    run(main)
