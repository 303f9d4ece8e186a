"""The own power-off of a launched guest, across resets. A daemon and a guest's socket stand in for the launcher and QEMU."""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from tests.daemon.asking import INFORMATION, OFF, answer_all
from tests.trio_help import run_in_real_time
from vchannel import Command, HostCommand, Request
from vhostcomm.channel.guest import Guest
from vhostcomm.config.load import load
from vhostcomm.daemon.daemon import Daemon
from vhostcomm.guest import events
from vhostcomm.guest.events import GuestEvent
from vhostcomm.launcher.power_off import RESET_PAUSE, PowerOff
from vhostcomm.log.logs import LimitedLog


def test_power_off_is_asked_again_after_a_reset_once_a_second(tmp_path: Path) -> None:
    log = structlog.get_logger()
    config = load(socks=[f"nas={tmp_path / 'nas'}"], flags={"control": "none"}, environment={})
    asked_for: list[Command] = []

    async def main() -> None:
        daemon = Daemon(config, log)
        power_off = PowerOff(daemon, 600.0, LimitedLog(log))

        def note(_: Guest, event: GuestEvent) -> None:
            if isinstance(event, events.Ready):
                power_off.ready.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            daemon.listeners.append(note)
            power_off.qemu_starts()
            guest = daemon.guests["nas"]
            stream = await trio.open_unix_socket(tmp_path / "nas")

            async def press_button() -> None:
                """Its boot continues."""
                await stream.send_all(Request.of(HostCommand.GUEST_POWER, needs_response=False).raw)
                nursery.start_soon(answer_all, stream, asked_for)

            nursery.start_soon(power_off.ask, guest, press_button, "a test")
            await power_off.confirmed.wait()
            assert asked_for.count(OFF) == 1
            power_off.confirmed = trio.Event()
            reset = trio.current_time()
            for _ in range(3):
                guest.machine_reset(by_guest=True)
                power_off.machine_reset()
                await trio.testing.wait_all_tasks_blocked()
            await power_off.confirmed.wait()
            assert trio.current_time() - reset >= RESET_PAUSE
            nursery.cancel_scope.cancel()
        await stream.aclose()

    run_in_real_time(main)
    assert asked_for.count(OFF) == 2
    assert INFORMATION in asked_for
