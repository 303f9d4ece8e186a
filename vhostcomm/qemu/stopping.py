"""Stopping a guest: one stage after the other, each with its deadline, until QEMU is gone."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import frozen

from vhostcomm.qemu.ending import Stage
from vhostcomm.qemu.pause import describe
from vhostcomm.qemu.qmp import QmpClosedError, QmpError

DEFAULT_GRACE: Final = 90.0
"""Seconds in all. A DSM with many packages takes over half a minute to shut down."""

QUIT_TIMEOUT: Final = 5.0
TERMINATE_TIMEOUT: Final = 3.0
"""Seconds at most for QEMU itself, which has only its disks' caches to write; less of a small grace."""

UNREADY_POWERDOWN: Final = 6.0
"""Seconds at most for the power button of a guest that was never ready: the genuine one doesn't heed
it at all, and a firmware or a boot loader neither."""

HURRIED: Final = 1.0
"""Seconds at most for each stage after a second request."""

KILL_TIMEOUT: Final = 10.0
"""Seconds for a killed QEMU to go, before it is given up as hanging in the kernel."""

PowerOff = Callable[[], Awaitable[object]]
"""Asks the guest to power itself off, through the vchannel. It may raise, and may take for ever."""


@frozen
class Grace:
    """Seconds for each stage before the last. With up to 5 s for a QEMU that doesn't answer, that is all it takes."""

    poweroff: float
    powerdown: float
    quit: float
    terminate: float

    @classmethod
    def split(cls, total: float = DEFAULT_GRACE, *, ready: bool) -> Grace:
        """Share `total` seconds out.

        QEMU's own stages get a tenth at most, and 5 s and 3 s at most; of the rest the guest's own
        power-off gets three quarters, and the power button one. Of a guest that was never ready the
        button is given up after 6 s.
        """
        quit_, terminate = min(QUIT_TIMEOUT, total / 10), min(TERMINATE_TIMEOUT, total / 10)
        rest = total - quit_ - terminate
        powerdown = rest / 4 if ready else min(rest / 4, UNREADY_POWERDOWN)
        return cls(rest * 3 / 4, powerdown, quit_, terminate)

    def of(self, stage: Stage) -> float:
        match stage:
            case Stage.POWEROFF:
                return self.poweroff
            case Stage.POWERDOWN:
                return self.powerdown
            case Stage.QUIT:
                return self.quit
            case Stage.TERMINATE:
                return self.terminate
            case Stage.KILL:
                return KILL_TIMEOUT


@frozen
class StageBegun:
    """A stage begins, for at most `seconds`; `why` says what led to it: why the one before didn't do."""

    stage: Stage
    seconds: float
    why: str


class Target(Protocol):
    """What is stopped."""

    ended: trio.Event

    async def command(self, name: str, /) -> object:
        """Have QMP execute a command; raises `QmpError`, soon."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send QEMU a signal."""


class Stopping:
    """One stop, from the first request to the end.

    Args:
        target: what to stop.
        poweroff: how the guest powers itself off; None where there is no way to ask it.
        grace: for each stage.
        tell: called as each stage begins.
    """

    def __init__(
        self, target: Target, poweroff: PowerOff | None, grace: Grace, tell: Callable[[StageBegun], None]
    ) -> None:
        self._target = target
        self._poweroff = poweroff
        self._grace = grace
        self._tell = tell
        self._requests = 1
        self._stage: Stage | None = None
        self._paused_why = ""
        self._waiting: trio.CancelScope | None = None
        self._killing = False
        self.paused = ""
        """QMP's RunState where the machine is paused, so that the guest can't be asked; "" while it runs."""

    def found_paused(self, status: str, cause: str) -> None:
        """The machine is paused: leave the guest out."""
        self._paused_why = cause
        waiting_for_guest = not self.paused and self._stage is not None and self._stage < Stage.QUIT
        self.paused = status
        if waiting_for_guest and self._waiting:
            self._waiting.cancel()

    def hurry(self) -> None:
        """A second request: leave the guest out, and give QEMU a second each. A third one kills."""
        self._requests += 1
        if self._waiting and not self._killing:
            self._waiting.cancel()

    async def run(self) -> bool:
        """Stop it. Returns whether it has ended; a process that hangs in the kernel outlives even SIGKILL."""
        first, why = await self._first_stage()
        for stage in Stage:
            if self._target.ended.is_set():
                break
            if (
                stage < first
                or (stage < Stage.QUIT and (self._requests > 1 or self.paused))
                or (stage < Stage.KILL and self._requests > 2)
            ):
                continue
            if stage is Stage.POWEROFF and not self._poweroff:
                why += "; there is no way to ask the guest, so its own power-off is left out"
                continue
            seconds = self._grace.of(stage)
            if self._requests > 1 and stage < Stage.KILL:
                seconds = min(seconds, HURRIED)
            self._killing = stage is Stage.KILL
            self._stage = stage
            self._tell(StageBegun(stage, seconds, why))
            why = await self._try(stage, seconds)
        return self._target.ended.is_set()

    async def _first_stage(self) -> tuple[Stage, str]:
        why = "asked to stop"
        with trio.CancelScope() as self._waiting:
            try:
                status = await self._target.command("query-status")
            except QmpError as error:
                # It hangs, is stopped, or isn't up yet: nothing that goes through it can do.
                return Stage.TERMINATE, f"{why}; {error}"
            if isinstance(status, dict) and not status.get("running", True):
                return await self._first_of_paused(str(status.get("status")), why)
            return Stage.POWEROFF, why
        return Stage.QUIT, "asked again"

    async def _first_of_paused(self, status: str, why: str) -> tuple[Stage, str]:
        if status == "suspended":
            # Awake, it can shut down.
            with suppress(QmpError):
                await self._target.command("system_wakeup")
                return Stage.POWEROFF, f"{why}; the guest slept, and is woken up first"
        if not self.paused:
            self.found_paused(status, describe(status).cause)
        return Stage.QUIT, f"{why}; the machine is paused, so the guest can't shut down: {self._paused_why} ({status})"

    async def _try(self, stage: Stage, seconds: float) -> str:
        """Do a stage; returns why QEMU is still there, if it is."""
        match stage:
            case Stage.POWEROFF:
                assert self._poweroff
                return await self._while_asking(self._poweroff, seconds)
            case Stage.POWERDOWN:
                # Twice: some guests take the first for a wish to wake up.
                for _ in range(2):
                    why = await self._while_asking(self._press, seconds / 2)
                    if self._requests > 1 or self._target.ended.is_set():
                        break
                return why
            case Stage.QUIT:
                return await self._while_asking(self._quit, seconds)
            case Stage.TERMINATE:
                self._target.send_signal(signal.SIGTERM)
                return await self._while_asking(None, seconds)
            case Stage.KILL:
                self._target.send_signal(signal.SIGKILL)
                return await self._while_asking(None, seconds)

    async def _press(self) -> None:
        await self._target.command("system_powerdown")

    async def _quit(self) -> None:
        with suppress(QmpClosedError):  # it may be gone before its reply is read
            await self._target.command("quit")

    async def _while_asking(self, ask: PowerOff | None, seconds: float) -> str:
        problem = ""

        async def try_asking() -> None:
            nonlocal problem
            try:
                if ask:
                    await ask()
            except Exception as error:  # noqa: BLE001 - whatever goes wrong, the next stage is tried
                problem = str(error) or type(error).__name__
                scope.cancel()

        with trio.move_on_after(seconds) as scope:
            self._waiting = scope
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_asking)
                await self._target.ended.wait()
                nursery.cancel_scope.cancel()
        self._waiting = None
        if self.paused and not self._target.ended.is_set():
            return f"the machine is paused, so the guest can't shut down: {self._paused_why} ({self.paused})"
        if problem:
            return problem
        return "asked again" if self._requests > 1 else f"QEMU was still there after {seconds:g} s"
