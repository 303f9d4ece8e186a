"""Turn the notices of a monitor into evidence about a guest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from vhostcomm.channel.guest import Guest
from vhostcomm.qemu.machine_watch import DiskError, Paused, Rebooted, Resumed
from vhostcomm.qemu.monitor import Connected, Monitor, MonitorNotice
from vhostcomm.qemu.supervise import QmpLost


def follow(
    path: str, guest: Callable[[], Guest], scope: trio.CancelScope
) -> tuple[Monitor, Callable[[], Awaitable[None]]]:
    """Make a monitor for a guest's QMP socket, and a function that runs it until the scope is cancelled."""

    def take(notice: MonitorNotice) -> None:
        if not scope.cancel_called:  # a cancelled task may still have read a notice
            _take(guest(), path, notice)

    monitor = Monitor(path, take)

    async def run() -> None:
        with scope:
            await monitor.run()

    return monitor, run


def _take(guest: Guest, path: str, notice: MonitorNotice) -> None:
    match notice:
        case Connected(version):
            guest.log.info("QMP connected", path=path, version=version)
        case QmpLost(why):
            guest.log.warning("QMP not connected", path=path, why=why)
            guest.machine_resumed()  # a pause is no longer known
        case Rebooted(by_guest, count):
            guest.connection_log.info("machine reset", by="the guest" if by_guest else "QMP", count=count)
            guest.machine_reset()
        case Paused(pause):
            guest.machine_paused(pause.cause, pause.remedy_for(guest.name))
        case Resumed():
            guest.machine_resumed()
        case DiskError(disk, reason):
            guest.connection_log.error("disk error reported to the guest", disk=disk, why=reason)
