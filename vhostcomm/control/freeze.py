"""Guests whose file systems are held still, and go on in time whatever becomes of who asked for it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

import trio
from attrs import define, field

from vchannel import Command, GuestCommand, Response
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest
from vhostcomm.control.host import Host
from vhostcomm.control.problems import Problem
from vhostcomm.errors import ServeError
from vhostcomm.logs import Log

THAW_TIMEOUT: Final = 5.0
"""Seconds that a guest gets to answer a thaw of ours."""

THAW_AGAIN: Final = 2.0
THAW_AGAIN_MOST: Final = 60.0
"""Seconds before a thaw that failed is tried again, doubled each time up to the most. A guest left frozen is as good as dead, so
it never ends by itself."""

FREEZE: Final = 30.0
"""Seconds after which a freeze ends by itself, unless who asks says otherwise."""

_NOTHING_SENT: Final = {Outcome.NOT_CONNECTED, Outcome.NOT_READY, Outcome.BUSY}


@define(eq=False)
class _Hold:
    """A guest that is frozen, or may be."""

    guest: Guest
    number: int
    """Of the freeze, among all of this guest's: a thaw undoes those that were sent before it, and no later one."""
    deadline: float
    """When it is thawed, on trio's clock."""
    timer: trio.CancelScope = field(factory=trio.CancelScope)
    lost: str = ""
    """Why its connection has ended, if it has: it is thawed when the guest is there again."""


class Freezer:
    """Freezes and thaws guests. One that it has frozen it thaws when the time is over, and when the daemon ends.

    A hold and its timer are there before the freeze is sent: whatever becomes of the answer, of who asked, and of the
    connection, somebody thaws.
    """

    def __init__(self, host: Host, log: Log) -> None:
        self._host = host
        self._log = log
        self._holds: dict[str, _Hold] = {}
        self._sent: Counter[str] = Counter()  # freezes, by guest
        self._closing = False
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

    async def call(self, guest: Guest, command: Command, data: bytes, *, timeout: float, by: str) -> Response:
        """Ask a guest anything, with what that means for a frozen one: it is thawed before it is told to end.

        Raises:
            CallError: there is no answer.
            Problem: it is to be frozen while the daemon stops.
        """
        match command:
            case GuestCommand.FS_FREEZE:
                return await self.freeze(guest, FREEZE, timeout=timeout, by=by)
            case GuestCommand.FS_UNFREEZE:
                return await self.thaw(guest, timeout=timeout, by=by)
            case GuestCommand.POWEROFF | GuestCommand.REBOOT:
                await self.thaw_first(guest, by)
            case _:
                pass
        return await self._host.call(guest.name, command, data, timeout=timeout, by=by)

    async def freeze(self, guest: Guest, seconds: float, *, timeout: float, by: str) -> Response:
        """Freeze a guest, for so many seconds at most.

        Raises:
            CallError: there is no answer. The timer runs all the same if it may have been carried out.
            Problem: the daemon stops.
        """
        if self._closing:
            raise Problem(503, "stopping", "the daemon stops, and thaws what is frozen", "ask the next one")
        before = self._holds.get(guest.name)
        self._sent[guest.name] += 1
        hold = self._hold(guest, trio.current_time() + seconds, "its time is over")
        sent = True
        try:
            # One that isn't answered within its own time is thawed, not waited for.
            return await self._host.call(guest.name, GuestCommand.FS_FREEZE, timeout=min(timeout, seconds), by=by)
        except CallError as error:
            sent = error.outcome not in _NOTHING_SENT
            raise
        finally:
            if self._holds.get(guest.name) is hold:
                self._tell_frozen(hold, before, sent=sent, by=by)

    async def thaw(self, guest: Guest, *, timeout: float, by: str) -> Response:
        """Thaw a guest.

        Raises:
            CallError: there is no answer. A timer that runs goes on.
        """
        covered = self._sent[guest.name]
        response = await self._host.call(guest.name, GuestCommand.FS_UNFREEZE, timeout=timeout, by=by)
        self._log.info("thawed", guest=guest.name, by=by)
        self._thawed(guest, covered)
        return response

    async def thaw_all(self, why: str) -> None:
        """Thaw every guest that is frozen, within a time; from now on none is frozen any more."""
        self._closing = True
        async with trio.open_nursery() as nursery:
            for hold in list(self._holds.values()):
                if not hold.lost:
                    nursery.start_soon(self.try_thaw, hold.guest, why)

    async def thaw_first(self, guest: Guest, why: str) -> None:
        """Thaw a guest before it is told to end, which a frozen one may not; one that doesn't heed is told all the same."""
        if guest.name in self._holds:
            await self.try_thaw(guest, why)

    async def try_thaw(self, guest: Guest, why: str) -> bool:
        """Thaw a guest, or tell in the log why not. Bounded in time."""
        covered = self._sent[guest.name]
        try:
            await self._host.call(guest.name, GuestCommand.FS_UNFREEZE, timeout=THAW_TIMEOUT, by=why)
        except (CallError, ServeError) as error:
            self._log.error("guest not thawed", guest=guest.name, why=str(error))
            return False
        self._log.warning("thawed", guest=guest.name, why=why)
        self._thawed(guest, covered)
        return True

    def _hold(self, guest: Guest, deadline: float, why: str) -> _Hold:
        """Have a guest thawed at a time, instead of when it was to be before."""
        assert self._nursery is not None
        if old := self._holds.get(guest.name):
            old.timer.cancel()
        hold = self._holds[guest.name] = _Hold(guest, self._sent[guest.name], deadline)
        self._nursery.start_soon(self._thaw_later, hold, why)
        return hold

    def _tell_frozen(self, hold: _Hold, before: _Hold | None, *, sent: bool, by: str) -> None:
        if not sent:
            self._forget(hold.guest.name)
            if before and not before.lost:
                self._hold(hold.guest, before.deadline, "its time is over")
            return
        left = max(0, hold.deadline - trio.current_time())
        self._log.info("frozen", guest=hold.guest.name, by=by, seconds=round(left, 1))
        if not hold.lost:
            hold.guest.froze(time.time() + left)

    def _thawed(self, guest: Guest, covered: int) -> None:
        hold = self._holds.get(guest.name)
        if hold is None or hold.number <= covered:
            self._forget(guest.name)
            guest.froze(None)

    def _forget(self, name: str) -> None:
        if hold := self._holds.pop(name, None):
            hold.timer.cancel()

    def _on_guest(self, guest: Guest, what: str) -> None:
        """A guest's connection may end and come again while it is frozen: it is thawed as soon as it is there again."""
        hold = self._holds.get(guest.name)
        if hold is None:
            return
        if what == "gone":
            hold.timer.cancel()
            hold.lost = guest.gone_why
        elif what == "rebooted" or (what == "connected" and guest.may_be_up is False):
            self._forget(guest.name)  # it, or its QEMU, has begun anew
        elif hold.lost and (what == "ready" or (what == "connected" and guest.may_be_up)):
            self._hold(guest, trio.current_time(), f"its connection ended ({hold.lost})")
            guest.froze(time.time())

    async def _thaw_later(self, hold: _Hold, why: str) -> None:
        pause = THAW_AGAIN
        with hold.timer:
            await trio.sleep_until(hold.deadline)
            while not await self.try_thaw(hold.guest, why):
                await trio.sleep(pause)
                pause = min(2 * pause, THAW_AGAIN_MOST)
