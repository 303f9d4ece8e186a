"""Freeze and thaw guests. A frozen guest is owed a thaw until it answers one, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import trio

from vchannel import Command, GuestCommand, Response
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.guest import Guest, now
from vhostcomm.config.address import Listen, runtime_directory
from vhostcomm.guest import Debt, DebtError, Moment, State, ThawAnswered, format_debt, parse_debt
from vhostcomm.guest.debt import FILE_MAX
from vhostcomm.log.logs import Log

THAW_TIMEOUT: Final = 5.0
"""Seconds for the answer to the daemon's own thaw."""

THAW_INTERVAL: Final = 2.0
THAW_INTERVAL_MAX: Final = 60.0
"""Seconds between an unanswered thaw and the next: doubled up to this maximum. A frozen guest is useless, so the daemon
never gives up."""

FREEZE: Final = 30.0
"""Seconds after which a guest is thawed if its client gives no time."""


class Ask(Protocol):
    """Sends a question to a guest by name; see `Asker.ask`."""

    def __call__(
        self,
        name: str,
        command: Command,
        data: bytes = b"",
        *,
        timeout: float,
        by: str = "",
        sending: Callable[[], None] | None = None,
    ) -> Awaitable[Response]: ...


class Freezer:
    """Freezes and thaws the guests of a daemon.

    It records the debt, also in a file, before it sends the freeze. So the guest is thawed even if the answer, the
    client, the connection or this daemon is lost.

    Args:
        ask: sends a question to a guest.
        log: the log.
    """

    def __init__(self, ask: Ask, log: Log) -> None:
        self._ask = ask
        self._log = log
        self._closing = False
        self._repaying: set[int] = set()  # guests with a thawing task, by identity
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send due thaws, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def adopt(self, guest: Guest) -> None:
        """Take over the debt that an earlier daemon left for a guest. It may block, and has to be called in a thread."""
        path = debt_path(guest)
        if path is None:
            return
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
                debt = parse_debt(file.read(FILE_MAX + 1), trio.from_thread.run_sync(now))
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, DebtError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._log.warning(
                "record of a freeze not read", guest=guest.name, file=str(path), why=why,
                remedy=f"vhostcomm thaw {guest.name}",
            )  # fmt: skip
            return
        guest.model.adopt(debt)
        self._log.warning("guest owed a thaw", guest=guest.name, frozen_by=debt.by)

    def hand_over(self, old: Guest, new: Guest) -> None:
        """Move the debt of a guest to its object for a new address."""
        path, new_path = debt_path(old), debt_path(new)
        if old.debt is None:
            if path == new_path:
                new.model.take(ThawAnswered(0), now().at)  # adopted from the file before the old one was thawed
            return
        new.model.adopt(Debt(0, old.debt.by, old.debt.since, now(), "its address changed"))
        self._record(new)
        if path and path != new_path:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def connected(self, guest: Guest) -> None:
        """Note that QEMU connected: the guest is thawed when that is due."""
        if guest.debt:
            self._see_to(guest)

    async def ask(self, guest: Guest, command: Command, data: bytes, *, timeout: float, by: str) -> Response:
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
        return await self._ask(guest.name, command, data, timeout=left, by=by)

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

        def sending() -> None:
            self._check_open(guest)  # the stop may have begun during the probe
            moment = now()
            guest.freezing(by, Moment(moment.at + seconds, moment.wall + seconds))
            self._record(guest)
            self._see_to(guest)
            self._log.info("frozen", guest=guest.name, by=by, seconds=round(seconds, 1))

        # A freeze without an answer when its thaw is due is thawed, not waited for.
        return await self._ask(
            guest.name, GuestCommand.FS_FREEZE, timeout=min(timeout, seconds), by=by, sending=sending
        )

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

        response = await self._ask(guest.name, GuestCommand.FS_UNFREEZE, timeout=timeout, by=by, sending=sending)
        guest.thawed(covers)
        self._record(guest)
        return response

    async def thaw_all(self, guests: Iterable[Guest], why: str) -> None:
        """Thaw every guest with a debt, within a time limit; from now on, none is frozen."""
        self._closing = True
        async with trio.open_nursery() as nursery:
            for guest in guests:
                nursery.start_soon(self.thaw_first, guest, why)

    async def thaw_first(self, guest: Guest, why: str, *, timeout: float = THAW_TIMEOUT) -> None:
        """Thaw a guest with a debt before it ends. If it doesn't answer, it ends all the same."""
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

    def _see_to(self, guest: Guest) -> None:
        """Start a task that sends due thaws, unless there is one; only for a connected guest with a debt."""
        assert self._nursery is not None
        if not self._closing and id(guest) not in self._repaying:
            self._repaying.add(id(guest))
            self._nursery.start_soon(self._repay, guest)

    async def _repay(self, guest: Guest) -> None:
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
                    if not await self._try_thaw(guest, debt.why):
                        with trio.move_on_after(pause):
                            while guest.model.entered is entered:
                                await guest.news.wait()
                        # One that is ready, or starts again, is asked as often as at first.
                        again = guest.model.entered is not entered
                        pause = THAW_INTERVAL if again else min(2 * pause, THAW_INTERVAL_MAX)
        finally:
            self._repaying.discard(id(guest))

    # -- the file that survives the daemon

    def _record(self, guest: Guest) -> None:
        """Write the debt to its file, or remove the file."""
        path = debt_path(guest)
        if path is None:
            return
        try:
            if guest.debt is None:
                path.unlink(missing_ok=True)
                return
            made = path.with_name(f"{path.name}.new")
            with suppress(FileNotFoundError):
                made.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(made, flags, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
                file.write(format_debt(guest.name, guest.debt))
            made.replace(path)
        except OSError as error:
            self._log.warning(
                "record of a freeze not kept", guest=guest.name, file=str(path), why=error.strerror,
                consequence="a daemon that is killed now leaves the guest frozen",
            )  # fmt: skip


def debt_path(guest: Guest) -> Path | None:
    """Return the file of a guest's debt: in systemd's state directory, beside the socket, or in the runtime directory."""
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.partition(":")[0]) / f".{guest.name}.frozen"
    if isinstance(guest.address, Listen):
        return guest.address.path.with_name(f".{guest.address.path.name}.frozen")
    try:
        return runtime_directory() / f".{guest.name}.frozen"
    except ValueError:
        return None
