"""What can be asked of the launcher's machine while it runs."""

from __future__ import annotations

from collections.abc import Callable

from vhostcomm.errors import MachineError
from vhostcomm.log.logs import Log
from vhostcomm.qemu.balloon import Balloon, balloon
from vhostcomm.qemu.qmp import QmpError
from vhostcomm.qemu.supervise import Qemu


class LaunchedMachine:
    """Passes requests to the QEMU that runs now. Without one, each raises `MachineError`.

    Args:
        qemu: that QEMU; None between two runs.
        log: gets who asked.
    """

    def __init__(self, qemu: Callable[[], Qemu | None], log: Log) -> None:
        self._qemu = qemu
        self._log = log

    async def resume(self, by: str) -> bool:
        """Resume the machine; see `MachineApi`."""
        qemu = self._running()
        self._log.info("resume requested", by=by)
        try:
            return await qemu.resume()
        except QmpError as error:
            raise MachineError("not resumed", str(error), "look at QEMU's messages in the log") from None

    async def balloon(self, size: int | None, by: str) -> Balloon:
        """Ask the guest to change its memory; see `MachineApi`."""
        qemu = self._running()
        if size is not None:
            self._log.info("balloon requested", bytes=size, by=by)
        try:
            return await balloon(qemu.command, size)
        except QmpError as error:
            raise MachineError("not done", str(error), "look at QEMU's messages in the log") from None

    def _running(self) -> Qemu:
        if (qemu := self._qemu()) is None:
            raise MachineError("not running", "no QEMU runs", "wait until it is started again")
        return qemu
