"""The first stage of a stop: the own power-off of a launched guest, as soon as the guest can be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from vchannel import GuestCommand
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest
from vhostcomm.daemon.daemon import Daemon
from vhostcomm.guest.model import State
from vhostcomm.log.logs import LimitedLog
from vhostcomm.qemu.qmp import QmpError

BOOT_TIME: Final = 600.0
"""Seconds after QEMU's start or a reset in which a guest without a sign of life may still boot. In the only public
trace of a genuine boot, seven minutes pass between QEMU's start and the first question."""

UNHEARD_TIMEOUT: Final = 6.0
"""Seconds that a stop then waits for such a guest, which may be restored and idle: time for two harmless questions."""

RESET_PAUSE: Final = 1.0
"""Seconds from a reset to the next power-off; a machine may reset as often as its guest likes."""


class PowerOff:
    """Asks a launched guest to power itself off.

    Args:
        daemon: the guest's.
        timeout: seconds for the guest to be up and to answer; the stop's grace.
        log: limited, for the same reason as `RESET_PAUSE`.
    """

    def __init__(self, daemon: Daemon, timeout: float, log: LimitedLog) -> None:
        self._daemon = daemon
        self._timeout = timeout
        self._log = log
        self._until_reset = trio.CancelScope()
        self._boot_began = 0.0
        self.ready = trio.Event()
        """Set when the guest was ready once in this run of QEMU."""
        self.confirmed = trio.Event()
        """Set when the guest has confirmed its power-off."""

    def qemu_starts(self) -> None:
        """Note a start of QEMU."""
        self.ready = trio.Event()
        self._boot_began = trio.current_time()

    def machine_reset(self) -> None:
        """Note a reset, which QMP reported."""
        self._boot_began = trio.current_time()
        self._until_reset.cancel()

    async def ask(self, guest: Guest, press_button: Callable[[], Awaitable[object]], by: str) -> None:
        """Make the guest power itself off, as soon as it can be asked; ask again if its machine is reset meanwhile.

        Args:
            press_button: presses the power button; raises `QmpError`.
            by: who requested the stop.

        Raises:
            CallError: it can't be asked, or is not up after the time of a boot.
        """
        await self._daemon.freezer.close(self._daemon.guests.values(), "the guest is to power itself off")
        if not self.ready.is_set():
            with suppress(QmpError):  # other operating systems have no agent, but react to the power button
                await press_button()
        while True:
            failed: CallError | None = None
            with trio.CancelScope() as self._until_reset:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_unheard, nursery.cancel_scope)
                    try:
                        await self._ask_once(guest, by)
                    except CallError as error:
                        failed = error
                    else:
                        await trio.sleep_forever()
                    nursery.cancel_scope.cancel()
            if failed is not None:
                raise failed
            if not self._until_reset.cancelled_caught:
                why = f"{guest.name}: the guest was never ready, and gave no sign of life"
                raise CallError(GuestCommand.POWEROFF, Outcome.NOT_READY, why)
            self._log.info("machine reset before the power-off, asking the guest again")
            await trio.sleep(RESET_PAUSE)

    async def _cancel_unheard(self, scope: trio.CancelScope) -> None:
        """Cancel the wait for a guest that was never ready, after the time of a boot."""
        if self.ready.is_set():
            return
        seconds = max(UNHEARD_TIMEOUT, self._boot_began + BOOT_TIME - trio.current_time())
        self._log.info("waiting for a guest that was never ready", seconds=round(seconds, 1))
        with trio.move_on_after(seconds):
            await self.ready.wait()
            return
        scope.cancel()

    async def _ask_once(self, guest: Guest, by: str) -> None:
        """Send the power-off. A connection that ends before the answer counts as an answer."""
        if self.ready.is_set() and guest.state is not State.READY:
            self._log.info("waiting until the guest is ready")
        try:
            await self._daemon.ask_guest(guest, GuestCommand.POWEROFF, timeout=self._timeout, by=by)
        except CallError as error:
            if error.outcome is not Outcome.LOST:
                raise
            return
        self.confirmed.set()
        self._log.info("the guest powers itself off")
