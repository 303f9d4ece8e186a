"""What the host asks its guest, and how it can end."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.daemon.test_session import Ends, serving
from tests.trio_help import run
from vchannel import NEED_DATA, Command, Connection, GuestCommand, HostCommand, Request, Response, Role
from vhostcomm.address import Listen
from vhostcomm.channel.calls import OUTSTANDING_LIMIT, URGENT, CallError, Outcome
from vhostcomm.channel.guest import State
from vhostcomm.channel.port import OLD, SOUND_PATIENCE, SOUNDINGS, Port
from vhostcomm.channel.sockets import peer_age
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
            with pytest.raises(CallError, match="no answer to get_information within 5 s") as caught:
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


@pytest.mark.parametrize("urgent_first", [False, True])
def test_urgent_and_ordinary_calls_take_no_room_from_each_other(urgent_first: bool) -> None:
    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:
            ordinary: list[Command] = [GuestCommand.GET_IP] * OUTSTANDING_LIMIT
            urgent = (sorted(URGENT) * OUTSTANDING_LIMIT)[:OUTSTANDING_LIMIT]
            for command in urgent + ordinary if urgent_first else ordinary + urgent:
                nursery.start_soon(ends.session.call, command, b"", 600)
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
                await ends.session.call(GuestCommand.GET_IP, b"", 10, begun=trio.current_time() - 4)
            assert trio.current_time() - start == pytest.approx(6, abs=0.5)

    run(main)


def test_the_connection_ends_while_calls_wait_to_be_sent() -> None:
    """Of a guest that reads nothing, so that each waits for its turn to write."""

    async def main() -> None:
        async with serving() as ends, trio.open_nursery() as nursery:
            outcomes: list[Outcome] = []

            async def call() -> None:
                with pytest.raises(CallError) as caught:
                    await ends.session.call(GuestCommand.GET_IP, bytes(4000), 600)
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


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float | None) -> None:
    """Whoever connects has run that long."""
    monkeypatch.setattr("vhostcomm.channel.port.peer_age", lambda _: seconds)


def test_only_a_ready_guest_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of one that isn't there isn't kept to surprise it later."""
    aged(monkeypatch, 1.0)

    async def main() -> None:
        with opened(tmp_path / "guest") as (ends, port):
            await talk(ends, port)

    async def talk(ends: Ends, port: Port) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            with pytest.raises(CallError, match="QEMU is not connected") as caught:
                await port.call(GuestCommand.POWEROFF, timeout=1)
            assert outcome(caught) is Outcome.NOT_CONNECTED
            stream = await trio.open_unix_socket(tmp_path / "guest")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(CallError, match="has not asked anything yet") as caught:
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

    run(main)


@pytest.mark.parametrize("age", [OLD, None])
def test_a_guest_that_was_up_before_us_is_found_by_something_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float | None
) -> None:
    """A daemon that was restarted can stop its guests without waiting for them to ask something."""
    aged(monkeypatch, age)

    async def main() -> None:
        asked_for: list[Command] = []

        async def answer(stream: trio.SocketStream) -> None:
            guest = Connection(Role.GUEST)
            async for data in stream:
                guest.receive_data(data)
                while (event := guest.next_event()) is not NEED_DATA:
                    assert isinstance(event, Request)
                    asked_for.append(event.command)
                    await stream.send_all(guest.send(event.reply(b"{}\0")))

        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                nursery.start_soon(answer, stream)
                await trio.testing.wait_all_tasks_blocked()
                async with trio.open_nursery() as several:
                    for _ in range(3):
                        several.start_soon(partial(port.call, GuestCommand.GET_IP, timeout=5))
                await port.call(GuestCommand.POWEROFF, timeout=5)
                assert ends.guest.state is State.READY
                nursery.cancel_scope.cancel()
            await stream.aclose()
        ip, information, off = GuestCommand.GET_IP, GuestCommand.GET_INFORMATION, GuestCommand.POWEROFF
        assert asked_for == [information, ip, ip, ip, off]

    run(main)


def test_a_silent_guest_is_asked_nothing_but_that_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(monkeypatch, OLD)

    async def main() -> None:
        with opened(tmp_path / "guest") as (ends, port):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(5):  # who has no time doesn't use up what there is
                    with pytest.raises(CallError, match="does not answer"):
                        await port.call(GuestCommand.POWEROFF, timeout=0.01)
                await trio.sleep(SOUND_PATIENCE)
                for _ in range(SOUNDINGS + 1):
                    began = trio.current_time()
                    with pytest.raises(CallError, match="does not answer") as caught:
                        await port.call(GuestCommand.POWEROFF, timeout=90)
                    assert outcome(caught) is Outcome.NOT_READY
                    assert trio.current_time() - began <= SOUND_PATIENCE + 0.1
                sent = bytearray()
                with trio.move_on_after(1):
                    while True:
                        sent += await stream.receive_some()
                assert ends.guest.stop is None
                nursery.cancel_scope.cancel()
            await stream.aclose()
        guest = Connection(Role.GUEST)
        guest.receive_data(bytes(sent))
        events = list(iter(guest.next_event, NEED_DATA))
        assert [getattr(each, "command", each) for each in events] == [GuestCommand.GET_INFORMATION] * SOUNDINGS

    run(main)


def test_how_long_a_peer_has_run(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        connect = (
            f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 'sock')!r}); input()"
        )
        with subprocess.Popen([sys.executable, "-c", connect], stdin=subprocess.PIPE) as child:
            theirs, _ = listener.accept()
            child_age = peer_age(theirs)
            child.communicate(b"\n")
        assert peer_age(theirs) is None  # it is gone
        theirs.close()
        with socket.socket(socket.AF_UNIX) as mine:
            mine.connect(str(tmp_path / "sock"))
            own, _ = listener.accept()
            own_age = peer_age(own)
            own.close()
    assert own_age is not None
    assert child_age is not None
    assert 0 <= child_age < own_age
