"""Stop a guest in stages, each with a deadline, until QEMU has ended."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import frozen

from vhostcomm.qemu.ending import Stage
from vhostcomm.qemu.pause_cause import describe
from vhostcomm.qemu.qmp import QmpClosedError, QmpError

DEFAULT_GRACE: Final = 90.0
"""Seconds in total. A DSM with many packages needs more than half a minute to shut down."""

QUIT_TIMEOUT: Final = 5.0
TERMINATE_TIMEOUT: Final = 3.0
"""Maximum seconds for QEMU itself, which only writes its disks' caches; less if the total is small."""

UNREADY_POWERDOWN: Final = 6.0
"""Maximum seconds for the power button of a guest that was never ready: genuine guests, firmware and boot loaders
ignore it."""

HURRIED: Final = 1.0
"""Maximum seconds for each stage after a second request."""

KILL_TIMEOUT: Final = 10.0
"""Seconds for a killed QEMU to end. After that, it hangs in the kernel."""

PowerOff = Callable[[], Awaitable[object]]
"""Asks the guest through the vchannel to power itself off. It may raise, and may never return."""


Grace = Mapping[Stage, float]
"""Seconds for each stage. A QEMU that doesn't answer adds up to 5 s to their sum."""


def split_grace(total: float = DEFAULT_GRACE, *, ready: bool) -> Grace:
    """Divide `total` seconds among the stages before SIGKILL.

    QEMU's own stages get at most a tenth each, and at most 5 s and 3 s. The guest's own power-off gets three quarters
    of the rest, and the power button one quarter, but at most 6 s for a guest that was never ready.
    """
    quit_, terminate = min(QUIT_TIMEOUT, total / 10), min(TERMINATE_TIMEOUT, total / 10)
    rest = total - quit_ - terminate
    return {
        Stage.POWEROFF: rest * 3 / 4,
        Stage.POWERDOWN: rest / 4 if ready else min(rest / 4, UNREADY_POWERDOWN),
        Stage.QUIT: quit_,
        Stage.TERMINATE: terminate,
        Stage.KILL: KILL_TIMEOUT,
    }


@frozen
class StageBegun:
    """A stage begins and may take `seconds`; `why` is the reason, such as the failure of the stage before."""

    stage: Stage
    seconds: float
    why: str


class Target(Protocol):
    """The QEMU to stop."""

    ended: trio.Event

    async def command(self, name: str, /) -> object:
        """Execute a QMP command; raises `QmpError`, soon."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send QEMU a signal."""


class Stopping:
    """One stop, from the first request to the end.

    Without `poweroff`, the guest can't be asked. `report` is called as each stage begins.
    """

    def __init__(
        self, target: Target, poweroff: PowerOff | None, grace: Grace, report: Callable[[StageBegun], None]
    ) -> None:
        self._target = target
        self._poweroff = poweroff
        self._grace = grace
        self._report = report
        self._requests = 1
        self._stage: Stage | None = None
        self._paused_why = ""
        self._waiting: trio.CancelScope | None = None
        self._killing = False
        self.paused = ""
        """QMP's RunState of a paused machine, whose guest can't be asked; "" while it runs."""

    def found_paused(self, status: str, cause: str) -> None:
        """Note that the machine is paused, and skip the stages that need the guest."""
        self._paused_why = cause
        waiting_for_guest = not self.paused and self._stage is not None and self._stage < Stage.QUIT
        self.paused = status
        if waiting_for_guest and self._waiting:
            self._waiting.cancel()

    def hurry(self) -> None:
        """Note a second request: skip the stages that need the guest, and give QEMU a second each. A third kills."""
        self._requests += 1
        if self._waiting and not self._killing:
            self._waiting.cancel()

    async def run(self) -> bool:
        """Stop QEMU. Return whether it has ended; a process that hangs in the kernel survives even SIGKILL."""
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
                why += "; there is no way to ask the guest, so its own power-off is skipped"
                continue
            seconds = self._grace[stage]
            if self._requests > 1 and stage < Stage.KILL:
                seconds = min(seconds, HURRIED)
            self._killing = stage is Stage.KILL
            self._stage = stage
            self._report(StageBegun(stage, seconds, why))
            why = await self._try(stage, seconds)
        return self._target.ended.is_set()

    async def _first_stage(self) -> tuple[Stage, str]:
        why = "asked to stop"
        with trio.CancelScope() as self._waiting:
            try:
                status = await self._target.command("query-status")
            except QmpError as error:
                # QEMU hangs, is stopped, or hasn't answered yet: the stages before SIGTERM need QMP.
                return Stage.TERMINATE, f"{why}; {error}"
            if isinstance(status, dict) and not status.get("running", True):
                return await self._first_of_paused(str(status.get("status")), why)
            return Stage.POWEROFF, why
        return Stage.QUIT, "asked again"

    async def _first_of_paused(self, status: str, why: str) -> tuple[Stage, str]:
        if status == "suspended":
            # An awake guest can shut down.
            with suppress(QmpError):
                await self._target.command("system_wakeup")
                return Stage.POWEROFF, f"{why}; the guest was suspended and is woken up first"
        if not self.paused:
            self.found_paused(status, describe(status).cause)
        return Stage.QUIT, f"{why}; the machine is paused, so the guest can't shut down: {self._paused_why} ({status})"

    async def _try(self, stage: Stage, seconds: float) -> str:
        """Perform a stage. Return why QEMU still runs, if it does."""
        match stage:
            case Stage.POWEROFF:
                assert self._poweroff
                return await self._while_asking(self._poweroff, seconds)
            case Stage.POWERDOWN:
                # Twice: some guests treat the first as a wake-up.
                for _ in range(2):
                    why = await self._while_asking(self._press, seconds / 2)
                    if self._requests > 1 or self._target.ended.is_set():
                        break
                return why
            case Stage.QUIT:
                return await self._while_asking(self._quit, seconds)
            case Stage.TERMINATE | Stage.KILL:
                self._target.send_signal(signal.SIGTERM if stage is Stage.TERMINATE else signal.SIGKILL)
                return await self._while_asking(None, seconds)

    async def _press(self) -> None:
        await self._target.command("system_powerdown")

    async def _quit(self) -> None:
        with suppress(QmpClosedError):  # it may end before its reply is read
            await self._target.command("quit")

    async def _while_asking(self, ask: PowerOff | None, seconds: float) -> str:
        problem = ""

        async def try_asking() -> None:
            nonlocal problem
            try:
                if ask:
                    await ask()
            except Exception as error:  # noqa: BLE001 - after any failure, the next stage follows
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
        return "asked again" if self._requests > 1 else f"QEMU still ran after {seconds:g} s"
