"""The files of the debts of frozen guests, which survive the daemon.

They are read and written in threads, as a file system may hang. One thread writes all files of a directory in order, so
the last state is what stays.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from vhostcomm.channel.guest import Guest, now
from vhostcomm.config.address import Listen, runtime_directory
from vhostcomm.guest.debt import FILE_MAX, Debt, format_debt, parse_debt
from vhostcomm.linux.private_files import replace_private
from vhostcomm.linux.threads import unless_it_hangs
from vhostcomm.log.logs import Log

WRITE_TIMEOUT: Final = 3.0
"""Seconds to wait for a file system that hangs."""


class DebtFiles:
    """Records the debts of a daemon's guests."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._announced: defaultdict[Path | None, list[Debt]] = defaultdict(list)

    def read(self, guest: Guest) -> Debt | None:
        """Return the debt that an earlier daemon left for a guest. It may block: call it in one of trio's threads."""
        path = debt_path(guest)
        if path is None:
            return None
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - of a descriptor
                return parse_debt(file.read(FILE_MAX + 1), trio.from_thread.run_sync(now))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._log.warning(
                "record of a freeze not read", guest=guest.name, file=str(path), why=why,
                remedy=f"vhostcomm thaw {guest.name}",
            )  # fmt: skip
            return None

    @contextmanager
    def announced(self, guest: Guest, debt: Debt) -> Iterator[None]:
        """Inside the block, record a debt that the guest doesn't have yet."""
        debts = self._announced[path := debt_path(guest)]
        debts.append(debt)
        try:
            yield
        finally:
            debts.remove(debt)
            if not debts:
                self._announced.pop(path, None)

    async def update(self, guest: Guest, timeout: float = WRITE_TIMEOUT) -> None:
        """Write a guest's debt to its file, or remove the file. Errors are logged.

        `timeout` is in seconds, for a file system that hangs; at most `WRITE_TIMEOUT`.
        """
        path = debt_path(guest)
        if path is None:
            return
        debt = guest.debt or next(iter(self._announced.get(path, ())), None)
        done = False

        def change() -> None:
            nonlocal done
            if debt is None:
                path.unlink(missing_ok=True)
            else:
                replace_private(path, [format_debt(guest.name, debt)])
            done = True

        timeout = min(timeout, WRITE_TIMEOUT)
        try:
            await unless_it_hangs(path.parent, change, timeout)
            why = "" if done else f"its file system has hung for {timeout:.3g} s"
        except OSError as error:
            why = error.strerror or str(error)
        except RuntimeError as error:  # no thread can be started
            why = str(error)
        if why and debt is not None:
            self._log.warning(
                "record of a freeze not kept", guest=guest.name, file=str(path), why=why,
                consequence="a daemon that is killed now leaves the guest frozen",
            )  # fmt: skip

    async def move(self, old: Guest, new: Guest) -> None:
        """Record a guest's debt at its new address, and no longer at the old one."""
        await self.update(new)
        path = debt_path(old)
        if path and path != debt_path(new):
            with suppress(OSError, RuntimeError):
                await unless_it_hangs(path.parent, lambda: path.unlink(missing_ok=True), WRITE_TIMEOUT)


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
