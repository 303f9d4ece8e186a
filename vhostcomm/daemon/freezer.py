"""Freeze and thaw guests. A frozen guest is owed a thaw until it answers one, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio
from attrs import evolve

from vchannel import Command, GuestCommand, Response
from vhostcomm.channel.asker import Asker
from vhostcomm.channel.calls import FREEZE, CallError, Outcome
from vhostcomm.channel.guest import Guest, now
from vhostcomm.daemon.debt_files import DebtFiles, debt_path
from vhostcomm.guest.debt import Debt
from vhostcomm.guest.evidence import Moment, ThawAnswered
from vhostcomm.guest.model import State
from vhostcomm.log.logs import Log

THAW_TIMEOUT: Final = 5.0
"""Seconds for the answer to the daemon's own thaw."""

THAW_INTERVAL: Final = 2.0
THAW_INTERVAL_MAX: Final = 60.0
"""Seconds between an unanswered thaw and the next: doubled up to this maximum. A frozen guest is useless, so the daemon
never gives up."""

THAW_PAUSE: Final = 1.0
"""Minimum seconds from a thaw that was due to the next: another host's record may change at any rate."""


class Freezer:
    """Freezes and thaws the guests of a daemon.

    It records the debt, also in a file, before it sends the freeze. So the guest is thawed even if the answer, the
    client, the connection or this daemon is lost.

    Args:
        asker_of: returns the asker of a guest, by its name; None if the guest is not served any longer.
    """

    def __init__(self, asker_of: Callable[[str], Asker | None], log: Log) -> None:
        self._asker_of = asker_of
        self._log = log
        self._files = DebtFiles(log)
        self._closing = False
        self._thawing: set[int] = set()  # guests with a thawing task, by identity
        self._recording: dict[int, bool] = {}  # guests with a task that writes the file: whether it has to write again
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send due thaws, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def adopt(self, guest: Guest) -> None:
        """Take over the debt that an earlier daemon left for a guest. It may block, and has to be called in a thread."""
        if debt := self._files.read(guest):
            guest.model.adopt(debt)
            self._log.warning("guest owed a thaw", guest=guest.name, frozen_by=debt.by)

    def owe(self, guest: Guest, debt: Debt) -> None:
        """Owe a guest the thaw of a freeze that another host sent."""
        if not self._closing:
            guest.model.adopt(debt)
            guest.wake()
            guest.lines.warning("guest owed a thaw", frozen_by=debt.by)
            self._keep_record(guest)
            self._thaw_later(guest)

    def settle(self, guest: Guest, by: str) -> None:
        """Note that another host thawed a guest."""
        if guest.debt and not self._closing:
            guest.thawed(guest.debt.number)
            guest.lines.info("thawed", by=by)
            self._keep_record(guest)

    def _keep_record(self, guest: Guest) -> None:
        """Write the file of a guest's debt in a task. There is one a guest, however often the debt changes."""
        assert self._nursery is not None
        if id(guest) not in self._recording:
            self._nursery.start_soon(self._record, guest)
        self._recording[id(guest)] = True

    async def _record(self, guest: Guest) -> None:
        try:
            while self._recording[id(guest)]:
                self._recording[id(guest)] = False
                await self._files.update(guest)
        finally:
            del self._recording[id(guest)]

    def hand_over(self, old: Guest, new: Guest) -> bool:
        """Move the debt of a guest to its object for a new address. Return whether `record_move` has to follow."""
        if old.debt is None:
            if debt_path(old) == debt_path(new):
                new.model.take(ThawAnswered(0), now().at)  # adopted from the file before the old one was thawed
            return False
        new.model.adopt(evolve(old.debt, number=0, until=now(), why="its address changed"))
        return True

    async def record_move(self, old: Guest, new: Guest) -> None:
        """Record a debt that was handed over."""
        await self._files.move(old, new)

    def connected(self, guest: Guest) -> None:
        """Note that QEMU connected: the guest is thawed when that is due."""
        if guest.debt:
            self._thaw_later(guest)

    async def ask(self, guest: Guest, command: Command, data: bytes = b"", *, timeout: float, by: str) -> Response:
        """Send any question to a guest. Thaw a frozen guest before a command that ends it.

        Raises:
            CallError: there is no answer.
        """
        began = trio.current_time()
        match command:
            case GuestCommand.FS_FREEZE:
                return await self.freeze(guest, FREEZE, timeout=timeout, by=by)
            case GuestCommand.FS_UNFREEZE:
                return await self.thaw(guest, timeout=timeout, by=by)
            case _:
                await self.before_end(guest, command, timeout=timeout, by=by)
        left = timeout - (trio.current_time() - began)
        return await self._asker(guest, command).ask(command, data, timeout=left, by=by)

    def _asker(self, guest: Guest, command: Command) -> Asker:
        if asker := self._asker_of(guest.name):
            return asker
        # A reload or the stop came first.
        raise CallError(command, Outcome.NOT_CONNECTED, f"{guest.name}: it is not served any longer")

    async def before_end(self, guest: Guest, command: Command, *, timeout: float, by: str) -> None:
        """Thaw a frozen guest before a command that ends it. Uses at most half of the timeout, in seconds."""
        if command in {GuestCommand.POWEROFF, GuestCommand.REBOOT}:
            await self.thaw_first(guest, by, timeout=timeout / 2)

    async def freeze(self, guest: Guest, seconds: float, *, timeout: float, by: str) -> Response:
        """Freeze a guest for at most `seconds`.

        Raises:
            CallError: there is no answer, or the daemon stops. A freeze that was sent is still thawed.
        """
        self._check_open(guest)

        def until() -> Moment:
            moment = now()
            return Moment(moment.at + seconds, moment.wall + seconds)

        def sending() -> None:
            self._check_open(guest)  # the stop may have begun during the probe
            guest.freezing(by, until())
            self._thaw_later(guest)
            self._log.info("frozen", guest=guest.name, by=by, seconds=round(seconds, 1))

        timeout = min(timeout, seconds)  # one without an answer when its thaw is due is thawed
        end, write_timeout = trio.current_time() + timeout, timeout / 2
        try:
            with self._files.announced(guest, Debt(0, by, now(), until())):
                await self._files.update(guest, write_timeout)
                left = max(0, end - trio.current_time())
                asker = self._asker(guest, GuestCommand.FS_FREEZE)
                return await asker.ask(GuestCommand.FS_FREEZE, timeout=left, by=by, sending=sending)
        finally:
            with trio.CancelScope(shield=True):
                await self._files.update(guest, write_timeout)

    def _check_open(self, guest: Guest) -> None:
        if self._closing:
            why = f"{guest.name}: the daemon stops, and thaws what is frozen"
            raise CallError(GuestCommand.FS_FREEZE, Outcome.STOPPING, why)

    async def thaw(self, guest: Guest, *, timeout: float, by: str) -> Response:
        """Thaw a guest, whether or not it is known to be frozen.

        Raises:
            CallError: there is no answer. The debt stays.
        """
        response = await self._thaw(guest, timeout, by)
        self._log.info("thawed", guest=guest.name, by=by)
        return response

    async def _thaw(self, guest: Guest, timeout: float, by: str) -> Response:
        covers = 0

        def sending() -> None:
            nonlocal covers
            covers = guest.model.freezes

        asker = self._asker(guest, GuestCommand.FS_UNFREEZE)
        response = await asker.ask(GuestCommand.FS_UNFREEZE, timeout=timeout, by=by, sending=sending)
        guest.thawed(covers)
        await self._files.update(guest)
        return response

    async def close(self, guests: Iterable[Guest], why: str) -> None:
        """Thaw every guest with a debt, within a time limit; from now on, none is frozen."""
        self._closing = True
        await self.thaw_all(guests, why)

    async def thaw_all(self, guests: Iterable[Guest], why: str) -> None:
        """Thaw those of the guests that have a debt, at once and within a time limit."""
        async with trio.open_nursery() as nursery:
            for guest in guests:
                if guest.debt:  # a task for each of 10,000 guests would take a second
                    nursery.start_soon(self.thaw_first, guest, why)

    async def thaw_first(self, guest: Guest, why: str, *, timeout: float = THAW_TIMEOUT) -> None:
        """Thaw a guest with a debt before it ends. It ends even if it doesn't answer."""
        if guest.debt is None:
            return
        if guest.model.channel is State.ABSENT:
            guest.lines.repeated(
                "guest not thawed",
                why="QEMU is not connected",
                next="it is thawed as soon as its socket is served again",
            )
        else:
            await self._try_thaw(guest, why, timeout=min(timeout, THAW_TIMEOUT))

    async def _try_thaw(self, guest: Guest, why: str, *, timeout: float = THAW_TIMEOUT) -> bool:
        """Thaw a guest, or log why that failed. Limited in time."""
        try:
            await self._thaw(guest, timeout, why)
        except CallError as error:
            guest.lines.repeated("guest not thawed", why=str(error))
            return False
        self._log.warning("thawed", guest=guest.name, why=why)
        return True

    # -- due thaws

    def _thaw_later(self, guest: Guest) -> None:
        """Start a task that sends due thaws, unless there is one; only for a connected guest with a debt."""
        assert self._nursery is not None
        if not self._closing and id(guest) not in self._thawing:
            self._thawing.add(id(guest))
            self._nursery.start_soon(self._thaw_until_answered, guest)

    async def _thaw_until_answered(self, guest: Guest) -> None:
        pause = THAW_INTERVAL
        try:
            while (debt := guest.debt) and guest.model.channel is not State.ABSENT:
                news = guest.news
                if debt.until.at > trio.current_time():
                    with trio.move_on_at(debt.until.at):
                        await news.wait()
                elif guest.state is State.PAUSED:
                    await news.wait()
                else:
                    entered = guest.model.entered
                    if await self._try_thaw(guest, debt.why):
                        await trio.sleep(THAW_PAUSE)
                    else:
                        with trio.move_on_after(pause):
                            while guest.model.entered is entered:
                                await guest.news.wait()
                        # One that is ready, or starts again, is asked as often as at first.
                        again = guest.model.entered is not entered
                        pause = THAW_INTERVAL if again else min(2 * pause, THAW_INTERVAL_MAX)
        finally:
            self._thawing.discard(id(guest))
