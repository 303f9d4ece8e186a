"""A supervised QEMU for a test, and its notices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio
from trio.testing import MockClock

from tests.qemu.roms import rom
from tests.trio_help import run_in_real_time
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import Ending, Stage
from vhostcomm.qemu.machine import Machine
from vhostcomm.qemu.qmp import QmpEvent
from vhostcomm.qemu.stopping import KILL_TIMEOUT, Grace
from vhostcomm.qemu.supervise import Notice, Qemu

T = TypeVar("T")


def grace_of(*seconds: float) -> Grace:
    """The seconds of each stage before SIGKILL."""
    return dict(zip(Stage, (*seconds, KILL_TIMEOUT), strict=True))


SHORT = grace_of(0.3, 0.2, 30, 30)
"""Seconds to stop a guest that ignores everything. Only the guest's stages are short."""


class Run:
    """One QEMU. `notices` has its notices so far; `notice` waits for one."""

    def __init__(self, argv: Sequence[str], *, paused: bool = False) -> None:
        self.notices: list[Notice] = []
        self._changed = trio.Event()
        self.qemu = Qemu(argv, self._add, paused=paused)

    def _add(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._changed.set()
        self._changed = trio.Event()

    def all(self, kind: type[T]) -> list[T]:
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def events(self) -> list[str]:
        return [event.name for event in self.all(QmpEvent)]

    async def notice(self, kind: type[T], which: Callable[[T], bool] = lambda _: True) -> T:
        """Wait for a notice of that kind, or return an earlier one."""
        while True:
            changed = self._changed
            for notice in self.all(kind):
                if which(notice):
                    return notice
            await changed.wait()


Body = Callable[[Run], Awaitable[object]]


def supervise(
    argv: Sequence[str], body: Body | None = None, *, paused: bool = False, clock: MockClock | None = None
) -> tuple[Ending, Run]:
    """Run QEMU and `body` at the same time. `body` must end QEMU, unless the guest does."""
    made = Run(argv, paused=paused)

    async def main() -> Ending:
        async with trio.open_nursery() as nursery:
            await nursery.start(made.qemu.run)
            if body:
                await body(made)
            return await made.qemu.wait()

    return run_in_real_time(main, clock=clock), made


def guest(can: Capabilities, folder: Path, code: bytes, *, no_reboot: bool = False) -> list[str]:
    """The command of a guest that runs this code, and can report a panic to an ISA device."""
    extra = (*rom(folder, code), "-device", "pvpanic")
    machine = Machine(memory=32, no_reboot=no_reboot, extra=extra)
    return build(machine, can)
