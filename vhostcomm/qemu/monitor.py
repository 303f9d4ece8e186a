"""A QMP connection to a QEMU that vhostcomm did not start: it reports the machine's state while the guest is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from vhostcomm.errors import MachineError
from vhostcomm.qemu.balloon import Balloon, balloon
from vhostcomm.qemu.machine_watch import MachineNotice, MachineWatch
from vhostcomm.qemu.qmp import Qmp, QmpError, QmpTimeoutError, connect
from vhostcomm.qemu.supervise import QmpLost

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds before the next attempt to connect: doubled from the first up to the longest."""

GREETING_TIMEOUT: Final = 10.0
"""Seconds for the greeting. QEMU greets a second client of a socket only after the first has left."""


@frozen
class Connected:
    """QMP is connected to a QEMU of this version."""

    version: str


MonitorNotice = Connected | QmpLost | MachineNotice


class Monitor:
    """Keeps a connection to a QMP socket, and reports changes of the machine.

    Args:
        path: the socket on which QEMU listens. No other client may use it.
        report: called with every notice. It must neither block nor raise. `QmpLost` is reported once for each period in
            which the socket can't be used.
    """

    def __init__(self, path: str, report: Callable[[MonitorNotice], None]) -> None:
        self.path = path
        self._report = report
        self._watch: MachineWatch | None = None
        self._lost = ""

    async def run(self) -> None:
        """Connect, report events, and reconnect, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._listen()
                pause = FIRST_PAUSE  # it was connected
            except QmpError as error:
                why = str(error)
                if isinstance(error, QmpTimeoutError):
                    why += ": give vhostcomm its own QMP socket"
                if why != self._lost:
                    self._lost = why
                    self._report(QmpLost(why))
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def resume(self) -> bool:
        """Resume the machine. Return False if it already runs.

        Raises:
            MachineError: the machine can't be resumed, it stopped again at once, or QMP is not connected.
        """
        if self._watch is None:
            raise self._not_connected()
        try:
            return await self._watch.resume()
        except QmpError as error:
            raise MachineError("not resumed", str(error), "look at QEMU's own log") from None

    async def balloon(self, size: int | None) -> Balloon:
        """Ask the guest to change its memory to `size` bytes; None only reads it.

        Raises:
            MachineError: the size can't be, there is no balloon, or QMP is not connected.
        """
        if self._watch is None:
            raise self._not_connected()
        try:
            return await balloon(self._watch.execute, size)
        except QmpError as error:
            raise MachineError("not done", str(error), "look at QEMU's own log") from None

    def _not_connected(self) -> MachineError:
        return MachineError(
            "no QMP connection", f"{self.path}: {self._lost or 'not connected yet'}", "look at QEMU's own log"
        )

    async def _listen(self) -> None:
        qmp = Qmp(await connect(self.path), greeting_timeout=GREETING_TIMEOUT)
        failed: QmpError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(qmp.run)
            except QmpError as error:
                failed = error
            else:
                await self._follow(qmp, nursery)
            nursery.cancel_scope.cancel()
        if failed:
            raise failed

    async def _follow(self, qmp: Qmp, nursery: trio.Nursery) -> None:
        self._lost = ""
        self._report(Connected(qmp.version))
        watch = self._watch = MachineWatch(qmp.execute, self._report)
        nursery.start_soon(watch.run)
        try:
            async for event in qmp.events:
                watch.handle(event)
        finally:
            self._watch = None
        self._lost = qmp.closed_because
        self._report(QmpLost(qmp.closed_because))
