"""Commands to a guest that may not be up: none that could do harm before the guest has proved that it is up."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.daemon.answering_guests import INFORMATION, IP, OFF, answer_all, connected, opened, outcome, running
from tests.trio_help import run
from vchannel import NEED_DATA, Command, Connection, GuestCommand, HostCommand, Request, Role
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.guest.model import HEARD_RECENTLY, PROBE_TIMEOUT, State
from vhostcomm.guest.questions import SETTLE


def commands(sent: bytes) -> list[object]:
    """The commands of frames."""
    guest = Connection(Role.GUEST)
    guest.receive_data(sent)
    return [getattr(each, "command", each) for each in iter(guest.next_event, NEED_DATA)]


def test_a_guest_that_is_not_up_gets_only_harmless_questions(tmp_path: Path) -> None:
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
                assert ends.guest.model.stop is None
                port.stop()
            sent = bytearray()
            async for data in stream:
                sent += data
            await stream.aclose()
        assert set(commands(bytes(sent))) == {INFORMATION}

    run(main)


@pytest.mark.parametrize("age", [0, 3, 600])
def test_a_guest_that_was_up_before_the_daemon_is_found_at_any_age_of_its_qemu(tmp_path: Path, age: float) -> None:
    """After a restart of the daemon, a restore or a migration, the guest need not ask anything first."""

    async def main() -> None:
        asked_for: list[Command] = []
        async with connected(tmp_path) as (ends, port, nursery, stream):
            nursery.start_soon(answer_all, stream, asked_for)
            await trio.sleep(age)
            async with trio.open_nursery() as several:
                for _ in range(3):
                    several.start_soon(partial(port.asker.ask, IP, timeout=5))
            await port.asker.ask(OFF, timeout=5)
            assert ends.guest.state is State.READY
        assert asked_for == [INFORMATION, IP, IP, IP, OFF]

    run(main)


@pytest.mark.parametrize("command", [OFF, GuestCommand.REBOOT, GuestCommand.FS_FREEZE, GuestCommand.RESET, 77])
def test_harmful_commands_need_a_recent_sign_of_life(tmp_path: Path, command: Command) -> None:
    async def main() -> None:
        asked_for: list[Command] = []
        async with connected(tmp_path) as (ends, port, nursery, stream):
            nursery.start_soon(answer_all, stream, asked_for)
            await trio.testing.wait_all_tasks_blocked()
            await port.asker.ask(IP, timeout=5)
            await port.asker.ask(command, timeout=5)
            await trio.sleep(HEARD_RECENTLY + 1)
            await port.asker.ask(command, timeout=5)
            # A reset invalidates earlier signs of life.
            ends.guest.machine_reset()
            await port.asker.ask(command, timeout=5)
            # A resumed machine may be in an earlier state.
            ends.guest.machine_resumed()
            await port.asker.ask(command, timeout=5)
        assert asked_for == [INFORMATION, IP, command, INFORMATION, command, INFORMATION, command, INFORMATION, command]

    run(main)


def test_a_stop_waits_for_a_guest_that_boots_within_its_own_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (ends, port, nursery, stream):
            asked_for: list[Command] = []

            async def boot() -> None:
                await trio.sleep(40)
                await stream.send_all(Request.of(HostCommand.GUEST_POWER, needs_response=False).raw)
                await answer_all(stream, asked_for)

            nursery.start_soon(boot)
            with pytest.raises(CallError, match="does not answer within 30 s"):
                await port.asker.ask(OFF, timeout=30)
            await port.asker.ask(OFF, timeout=90)
            assert trio.current_time() - ends.guest.model.entered.at < 5, "the stop follows the boot at once"
        assert asked_for[-1] is OFF
        assert asked_for.count(OFF) == 1, "the stop that timed out is not carried out"

    run(main)


def test_a_stop_waits_for_a_qemu_that_reconnects(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_, port, nursery):
            asked_for: list[Command] = []

            async def reconnect() -> None:
                await trio.sleep(1)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                async with stream:
                    await answer_all(stream, asked_for)

            nursery.start_soon(reconnect)
            await port.asker.ask(OFF, timeout=10)
        assert asked_for == [INFORMATION, OFF]

    run(main)


def test_a_late_answer_proves_that_the_guest_is_up(tmp_path: Path) -> None:
    """For example, the answer to a question that was sent before a migration ended."""

    async def main() -> None:
        asked_for: list[Command] = []
        async with connected(tmp_path) as (ends, port, nursery, stream):
            nursery.start_soon(partial(answer_all, stream, asked_for, after=PROBE_TIMEOUT + 0.5))
            await port.asker.ask(OFF, timeout=60)
            assert ends.guest.state is State.READY
        assert asked_for == [INFORMATION, OFF]

    run(main)


def test_a_silent_guest_is_probed_less_and_less_and_for_ever(tmp_path: Path) -> None:
    """A probe continues after its client has timed out, and several clients share one."""

    async def main() -> None:
        async with connected(tmp_path) as (_, port, nursery, stream):
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                with pytest.raises(CallError, match="does not answer"):
                    await port.asker.ask(OFF, timeout=0.01)
            sent: list[float] = []
            nursery.start_soon(take_times, stream, sent)
            with pytest.raises(CallError, match="does not answer"):
                await port.asker.ask(OFF, timeout=600)
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
        async with connected(tmp_path) as (ends, port, nursery, stream):
            nursery.start_soon(answer_all, stream, asked_for)
            await trio.testing.wait_all_tasks_blocked()
            await port.asker.ask(IP, timeout=5)
            ends.guest.machine_paused("disk data: No space left on device", "vhostcomm resume nas")
            assert ends.guest.state is State.PAUSED
            for command in OFF, IP, INFORMATION:
                with pytest.raises(CallError, match=r"paused: disk data: No space left.*; vhostcomm resume") as caught:
                    await port.asker.ask(command, timeout=30)
                assert outcome(caught) is Outcome.PAUSED
            await port.asker.ask(GuestCommand.FS_UNFREEZE, timeout=5)
            ends.guest.machine_resumed()
            await port.asker.ask(OFF, timeout=5)
        thaw = GuestCommand.FS_UNFREEZE
        assert asked_for in ([INFORMATION, IP, thaw, OFF], [INFORMATION, IP, thaw, INFORMATION, OFF])

    run(main)
