"""The power-off that the launcher asks a guest for, across resets. The launcher and QEMU are simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio

from tests.daemon.answering_guests import INFORMATION, OFF, answer_all
from tests.trio_help import run_in_real_time
from vchannel import Command, GuestCommand, HostCommand, Request
from vhostcomm.channel.calls import CallError
from vhostcomm.channel.guest import Guest
from vhostcomm.config.load import load
from vhostcomm.daemon.daemon import Daemon
from vhostcomm.guest.events import GuestEvent
from vhostcomm.launcher.power_off import RESET_PAUSE, PowerOff
from vhostcomm.log.logs import LimitedLog


@asynccontextmanager
async def launched(folder: Path) -> AsyncIterator[tuple[Daemon, PowerOff, trio.Nursery, trio.SocketStream]]:
    """A daemon whose guest's QEMU has just started and is connected."""
    log = structlog.get_logger()
    daemon = Daemon(load(socks=[f"nas={folder / 'nas'}"], flags={"control": "none"}, environment={}), log)
    power_off = PowerOff(daemon, 600.0, LimitedLog(log))

    connected = trio.Event()

    def note(_: Guest, event: GuestEvent) -> None:
        if event is GuestEvent.CONNECTED:
            connected.set()
        elif event is GuestEvent.READY:
            power_off.ready.set()

    async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        daemon.listeners.append(note)
        power_off.qemu_starts()
        # Closed only when no task reads from it any longer.
        stream = await cleanup.enter_async_context(await trio.open_unix_socket(folder / "nas"))
        await connected.wait()
        yield daemon, power_off, nursery, stream
        nursery.cancel_scope.cancel()


def test_power_off_is_asked_again_after_a_reset_once_a_second(tmp_path: Path) -> None:
    asked_for: list[Command] = []

    async def main() -> None:
        async with launched(tmp_path) as (daemon, power_off, nursery, stream):
            guest = daemon.guests["nas"]

            async def press_button() -> None:
                """The guest's boot continues."""
                await stream.send_all(Request.of(HostCommand.GUEST_POWER, needs_response=False).raw)
                nursery.start_soon(answer_all, stream, asked_for)

            nursery.start_soon(power_off.ask, guest, press_button, "a test")
            await power_off.confirmed.wait()
            assert asked_for.count(OFF) == 1
            power_off.confirmed = trio.Event()
            reset = trio.current_time()
            for _ in range(3):
                guest.machine_reset()
                power_off.machine_reset()
                await trio.testing.wait_all_tasks_blocked()
            await power_off.confirmed.wait()
            assert trio.current_time() - reset >= RESET_PAUSE

    run_in_real_time(main)
    assert asked_for.count(OFF) == 2
    assert INFORMATION in asked_for


def test_guest_is_thawed_before_its_power_off_and_not_frozen_again(tmp_path: Path) -> None:
    """The thaw precedes the power button, too: a guest with frozen file systems can't shut down."""
    asked_for: list[Command] = []
    at_button: list[Command] = []

    async def main() -> None:
        async with launched(tmp_path) as (daemon, power_off, nursery, stream):
            nursery.start_soon(answer_all, stream, asked_for)
            await daemon.freeze(daemon.guests["nas"], 600.0, timeout=60.0, by="a test")
            power_off.ready = trio.Event()  # its QEMU was replaced

            async def press_button() -> None:
                at_button.extend(asked_for)

            nursery.start_soon(power_off.ask, daemon.guests["nas"], press_button, "a test")
            await power_off.confirmed.wait()
            with pytest.raises(CallError, match="the daemon stops, and thaws what is frozen"):
                await daemon.freeze(daemon.guests["nas"], 600.0, timeout=60.0, by="a test")

    run_in_real_time(main)
    assert at_button[-2:] == [GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE]
    assert asked_for[len(at_button) :].count(OFF) == 1
