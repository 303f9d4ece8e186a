"""Guests whose file systems are held still, and go on in time whatever becomes of who asked for it."""

from __future__ import annotations

import time
from typing import Final

import trio

from vchannel import GuestCommand, Response
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest, State
from vhostcomm.control.host import Host
from vhostcomm.errors import ServeError
from vhostcomm.logs import Log

THAW_TIMEOUT: Final = 5.0
"""Seconds that a guest gets to answer a thaw of ours."""

THAW_AGAIN: Final = 2.0
THAW_AGAIN_MOST: Final = 60.0
"""Seconds before a thaw that failed is tried again, doubled each time up to the most. A guest left frozen is as good as dead, so
it never ends by itself."""

_NOTHING_SENT: Final = {Outcome.NOT_CONNECTED, Outcome.NOT_READY, Outcome.BUSY}


class Freezer:
    """Freezes and thaws guests. One that it has frozen it thaws when the time is over, and when the daemon ends."""

    def __init__(self, host: Host, log: Log) -> None:
        self._host = host
        self._log = log
        self._timers: dict[str, trio.CancelScope] = {}
        self._pending: dict[str, Guest] = {}  # may be frozen already, and not have said so
        self._lost: dict[str, str] = {}  # why the connection of one that is frozen has ended
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the timers, until cancelled."""
        self._host.listeners.append(self._on_guest)
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._host.listeners.remove(self._on_guest)

    async def freeze(self, guest: Guest, seconds: float, *, timeout: float, by: str) -> Response:
        """Freeze a guest, for so many seconds at most.

        Raises:
            CallError: there is no answer. The timer runs all the same if it may have been carried out.
        """
        deadline = trio.current_time() + seconds
        self._pending[guest.name] = guest
        sent = True
        try:
            # One that isn't answered within its own time is thawed, not waited for.
            return await self._host.call(guest.name, GuestCommand.FS_FREEZE, timeout=min(timeout, seconds), by=by)
        except CallError as error:
            sent = error.outcome not in _NOTHING_SENT
            raise
        finally:
            self._pending.pop(guest.name, None)
            if sent and guest.state is State.READY:
                self._frozen(guest, deadline, by)
            elif sent:
                self._lost[guest.name] = guest.gone_why

    async def thaw(self, guest: Guest, *, timeout: float, by: str) -> Response:
        """Thaw a guest.

        Raises:
            CallError: there is no answer. A timer that runs goes on.
        """
        response = await self._host.call(guest.name, GuestCommand.FS_UNFREEZE, timeout=timeout, by=by)
        self._forget(guest.name)
        self._log.info("thawed", guest=guest.name, by=by)
        guest.froze(None)
        return response

    async def thaw_all(self, why: str) -> None:
        """Thaw every guest that is frozen, within a time."""
        frozen = {name: guest for name, guest in self._host.guests.items() if guest.frozen_until is not None}
        async with trio.open_nursery() as nursery:
            for guest in (frozen | self._pending).values():
                nursery.start_soon(self.try_thaw, guest, why)

    async def thaw_first(self, guest: Guest, why: str) -> None:
        """Thaw a guest before it is told to end, which a frozen one may not; one that doesn't heed is told all the same."""
        if guest.frozen_until is not None or guest.name in self._pending:
            await self.try_thaw(guest, why)

    async def try_thaw(self, guest: Guest, why: str) -> bool:
        """Thaw a guest, or tell in the log why not. Bounded in time."""
        try:
            await self._host.call(guest.name, GuestCommand.FS_UNFREEZE, timeout=THAW_TIMEOUT, by=why)
        except (CallError, ServeError) as error:
            self._log.error("guest not thawed", guest=guest.name, why=str(error))
            return False
        self._log.warning("thawed", guest=guest.name, why=why)
        self._forget(guest.name)
        guest.froze(None)
        return True

    def _forget(self, name: str) -> None:
        self._lost.pop(name, None)
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _on_guest(self, guest: Guest, what: str) -> None:
        """A guest's connection may end and come again while it is frozen: it is thawed as soon as it is there again."""
        if what == "gone" and guest.name in self._timers:
            self._timers.pop(guest.name).cancel()
            self._lost[guest.name] = guest.gone_why
        elif guest.name not in self._lost or guest.name in self._timers:
            pass
        elif (what == "connected" and guest.may_be_up) or what == "ready":
            guest.froze(time.time())
            self._keep_thawing(guest, trio.current_time(), f"its connection ended ({self._lost[guest.name]})")
        elif what == "connected" and guest.may_be_up is False:
            self._forget(guest.name)  # its QEMU is a new one

    def _frozen(self, guest: Guest, deadline: float, by: str) -> None:
        if old := self._timers.pop(guest.name, None):
            old.cancel()
        left = max(0, deadline - trio.current_time())
        self._log.info("frozen", guest=guest.name, by=by, seconds=round(left, 1))
        guest.froze(time.time() + left)
        self._keep_thawing(guest, deadline, "its time is over")

    def _keep_thawing(self, guest: Guest, deadline: float, why: str) -> None:
        assert self._nursery is not None
        timer = self._timers[guest.name] = trio.CancelScope()
        self._nursery.start_soon(self._thaw_later, guest, deadline, why, timer)

    async def _thaw_later(self, guest: Guest, deadline: float, why: str, timer: trio.CancelScope) -> None:
        pause = THAW_AGAIN
        with timer:
            await trio.sleep_until(deadline)
            while not await self.try_thaw(guest, why):
                await trio.sleep(pause)
                pause = min(2 * pause, THAW_AGAIN_MOST)
