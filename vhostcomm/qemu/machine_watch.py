"""Watch over QMP whether a machine runs, with the cause of a pause, and its reboots; resume it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any, Final

import trio
from attrs import frozen

from vhostcomm.errors import MachineError
from vhostcomm.qemu.pause_cause import RESUMABLE, TRANSIENT, Pause, clean, describe, failures_of
from vhostcomm.qemu.qmp import QmpError, QmpEvent

QUERY_DELAY: Final = 0.1
"""Seconds between a stop and the query for its cause. Meanwhile the machine may resume or QEMU may end.

QEMU 7.2 hangs at its end if a command arrives then: 12 of 40 times (measured). So there are as few queries as possible,
and a guest that keeps sleeping and waking costs at most ten a second.
"""

TRANSIENT_PAUSE: Final = 0.5
"""Seconds between queries while QEMU is in a state that ends without an event, such as the end of a migration."""

SETTLING: Final = 1.0
"""Seconds after a resume in which a new stop has the same cause: QEMU repeats the failed request immediately."""

REASONS_KEPT: Final = 16

REBOOT_WINDOW: Final = 1.0
"""Seconds in which resets count as one reboot: Linux tries several methods, and QEMU reports each (three, measured)."""


@frozen
class Rebooted:
    """A reboot by the guest, or by ``system_reset`` through QMP. `count` counts from 1 in this run."""

    by_guest: bool
    count: int


@frozen
class Paused:
    """The machine is paused, or the cause of its pause changed."""

    pause: Pause


@frozen
class Resumed:
    """The machine runs again, also if its pause was too short to be reported: perhaps in an earlier state (loadvm)."""


@frozen
class DiskError:
    """A disk's request failed, and QEMU reported it to the guest, which continues. `name` is QEMU's disk name."""

    name: str
    reason: str


MachineNotice = Rebooted | Paused | Resumed | DiskError


class MachineWatch:
    """Tracks whether a machine runs, and its reboots. `handle` needs every QMP event; `run` queries the causes of pauses.

    Args:
        execute: executes a QMP command by name; raises `QmpError`.
        report: called with every change. It must neither block nor raise.
        running: whether the machine is known to run initially.
    """

    def __init__(
        self, execute: Callable[..., Awaitable[Any]], report: Callable[[MachineNotice], None], *, running: bool = False
    ) -> None:
        self.execute = execute
        self._report = report
        self._wake = trio.Event()
        self._to_ask = False
        if not running:
            self._ask()
        self._stopped = trio.Event()
        self._resumes = 0
        self._reboots = 0
        self._rebooted_at = -inf
        self._ending = False
        self._reasons: dict[str, str] = {}
        self._reported: set[str] = set()
        self.pause: Pause | None = None
        """Why the machine is paused; None if it runs as far as is known."""

    def handle(self, event: QmpEvent) -> None:
        """Handle an event."""
        match event.name:
            case "STOP" | "SUSPEND":
                self._stopped.set()
                self._ask()
                self._ending = False
            case "RESUME" | "WAKEUP":
                self._to_ask = False
                self._resumes += 1
                self._forget_pause()
                self._report(Resumed())
            case "SHUTDOWN":
                self._to_ask = False
                self._ending = True  # unless a STOP follows: then QEMU stays
            case "BLOCK_IO_ERROR":
                self._failed(event.data)
            # Measured from the first reset of a reboot: a guest that resets for ever counts as one reboot a second.
            case "RESET" if trio.current_time() - self._rebooted_at >= REBOOT_WINDOW:
                self._rebooted_at = trio.current_time()
                self._reboots += 1
                self._report(Rebooted(event.data.get("guest") is True, self._reboots))
            case _:
                pass

    async def run(self) -> None:
        """Query QEMU's state after events that may have changed it, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(QUERY_DELAY)
            if not self._to_ask:
                continue
            self._to_ask = False
            with suppress(QmpError):  # the connection's owner handles a QEMU that hangs or ended
                await self._look()
            while self.pause is not None and self.pause.status in TRANSIENT and not self._ending:
                await trio.sleep(TRANSIENT_PAUSE)
                if not self._ending:
                    with suppress(QmpError):
                        await self._look()

    def _ask(self) -> None:
        self._to_ask = True
        self._wake.set()

    async def resume(self) -> bool:
        """Resume the machine. Return False if it already runs.

        Raises:
            MachineError: it can't be resumed, or stopped again at once.
            QmpError: QEMU doesn't answer, or refuses.
        """
        await self._look()
        before = self.pause
        if before is None:
            return False
        if before.status not in RESUMABLE:
            raise MachineError("can't be resumed", before.cause, before.remedy)
        self._stopped = trio.Event()
        await self.execute("system_wakeup" if before.status == "suspended" else "cont")
        with trio.move_on_after(SETTLING):
            await self._stopped.wait()
        await self._look()
        if self.pause is not None:
            again = "it stopped again at once" if self._stopped.is_set() else "it does not run yet"
            raise MachineError("paused again", f"{again}: {self.pause.cause}", self.pause.remedy)
        return True

    async def _look(self) -> None:
        resumes = self._resumes
        status = await self.execute("query-status")
        status = status if isinstance(status, dict) else {}
        if status.get("running") is True:
            was_paused = self.pause is not None
            self._forget_pause()
            if was_paused:
                self._report(Resumed())
            return
        name = str(status.get("status", "?"))
        failures = failures_of(await self.execute("query-block"), self._reasons) if name == "io-error" else ()
        if resumes != self._resumes:
            return  # the answers are older than a resume
        pause = describe(name, failures)
        if pause != self.pause:
            self.pause = pause
            self._report(Paused(pause))

    def _forget_pause(self) -> None:
        self._reasons.clear()
        self._reported.clear()
        self.pause = None

    def _failed(self, data: dict[str, Any]) -> None:
        names = [each for each in (data.get("device"), data.get("node-name")) if isinstance(each, str) and each]
        reason = clean(str(data.get("reason", "")))
        for name in names:
            if len(self._reasons) < REASONS_KEPT:
                self._reasons[name] = reason
        name = clean(names[0]) if names else "?"
        # A guest can cause any number of errors: report each disk once until the machine stops and runs again.
        if data.get("action") == "report" and name not in self._reported and len(self._reported) < REASONS_KEPT:
            self._reported.add(name)
            self._report(DiskError(name, reason))
