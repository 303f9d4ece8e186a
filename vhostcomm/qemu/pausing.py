"""Whether a machine runs, from QMP: paused with its cause, resumed, and resuming it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from attrs import frozen

from vhostcomm.errors import ResumeError
from vhostcomm.qemu.pause import TRANSIENT, Pause, clean, describe, failures_of
from vhostcomm.qemu.qmp import QmpError, QmpEvent

LOOK_PAUSE: Final = 0.1
"""Seconds at least from one look at QEMU's state to the next: a guest can sleep and wake as often as it likes."""

TRANSIENT_PAUSE: Final = 0.5
"""Seconds to the next look while QEMU is in a state that ends without an event, such as a migration's last part."""

SETTLING: Final = 1.0
"""Seconds after a resume in which a new stop counts as the same trouble: QEMU repeats the failed request at once."""

REASONS_KEPT: Final = 16

_CHANGES: Final = frozenset({"STOP", "RESUME", "SUSPEND", "WAKEUP", "WATCHDOG", "BLOCK_IO_ERROR", "MIGRATION"})


@frozen
class Paused:
    """The machine is paused, or still is for another cause."""

    pause: Pause


@frozen
class Resumed:
    """The machine runs again."""


@frozen
class DiskError:
    """A disk's request failed, and the guest was told the error: it runs on. `name` is QEMU's for the disk."""

    name: str
    reason: str


PauseNotice = Paused | Resumed | DiskError


class PauseWatch:
    """What QMP says of a machine that runs or doesn't. Every event goes to `heed`; `run` asks for the cause.

    Args:
        execute: a QMP command by its name; raises `QmpError`.
        tell: is called with what changes. It must neither block nor raise.
    """

    def __init__(self, execute: Callable[[str], Awaitable[Any]], tell: Callable[[PauseNotice], None]) -> None:
        self._execute = execute
        self._tell = tell
        self._changed = trio.Event()
        self._changed.set()  # it may be paused already
        self._stopped = trio.Event()
        self._reasons: dict[str, str] = {}
        self._reported: set[str] = set()
        self.pause: Pause | None = None
        """Why it is paused; None while it runs, as far as is known."""

    def heed(self, event: QmpEvent) -> None:
        """Take note of an event."""
        if event.name in _CHANGES:
            self._changed.set()
        if event.name in {"STOP", "SUSPEND"}:
            self._stopped.set()
        if event.name == "BLOCK_IO_ERROR":
            self._failed(event.data)

    async def run(self) -> None:
        """Ask QEMU for its state when something may have changed it, until cancelled or QMP ends."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            try:
                await self._look()
            except QmpError:
                if self.pause is None:
                    continue  # it hangs, or is gone: whoever has the connection finds out
            if self.pause is not None and self.pause.status in TRANSIENT:
                with trio.move_on_after(TRANSIENT_PAUSE):
                    await self._changed.wait()
                self._changed.set()
            else:
                await trio.sleep(LOOK_PAUSE)

    async def resume(self) -> bool:
        """Have the machine run again. Returns False if it does already.

        Raises:
            ResumeError: it can't be resumed, or stopped again at once.
            QmpError: QEMU doesn't answer, or refuses.
        """
        await self._look()
        before = self.pause
        if before is None:
            return False
        if not before.resumable:
            raise ResumeError("not to be resumed", before.cause, before.remedy)
        self._stopped = trio.Event()
        await self._execute("system_wakeup" if before.status == "suspended" else "cont")
        with trio.move_on_after(SETTLING):
            await self._stopped.wait()
        await self._look()
        if self.pause is not None:
            again = "it stopped again at once" if self._stopped.is_set() else "it does not run yet"
            raise ResumeError("paused again", f"{again}: {self.pause.cause}", self.pause.remedy)
        return True

    async def _look(self) -> None:
        status = await self._execute("query-status")
        status = status if isinstance(status, dict) else {}
        if status.get("running") is True:
            self._reasons.clear()
            self._reported.clear()
            if self.pause is not None:
                self.pause = None
                self._tell(Resumed())
            return
        name = str(status.get("status", "?"))
        failures = failures_of(await self._execute("query-block"), self._reasons) if name == "io-error" else ()
        pause = describe(name, failures)
        if pause != self.pause:
            self.pause = pause
            self._tell(Paused(pause))

    def _failed(self, data: dict[str, Any]) -> None:
        names = [each for each in (data.get("device"), data.get("node-name")) if isinstance(each, str) and each]
        reason = clean(str(data.get("reason", "")))
        for name in names:
            if len(self._reasons) < REASONS_KEPT:
                self._reasons[name] = reason
        name = clean(names[0]) if names else "?"
        # The guest can have as many as it likes: each disk is told once until the machine stops and runs again.
        if data.get("action") == "report" and name not in self._reported and len(self._reported) < REASONS_KEPT:
            self._reported.add(name)
            self._tell(DiskError(name, reason))
