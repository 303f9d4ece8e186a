"""The machine with what this host can do for it."""

from __future__ import annotations

from typing import Final

import attrs

from vhostcomm.qemu import hugepages, tap
from vhostcomm.qemu.disk import fitting
from vhostcomm.qemu.machine import AnyDisk, Disk, Machine, TapNet

HUGEPAGES_AUTO: Final = "auto"
"""In the place of a folder: find one with room, or go without."""


def fitted(machine: Machine, io_uring: bool) -> tuple[Machine, tuple[str, ...]]:
    """The same machine as this host can run it, and what had to give way, a sentence each.

    Args:
        machine: that is wanted.
        io_uring: QEMU is built with it for disks.
    """
    said: list[str] = []
    if isinstance(machine.net, TapNet):
        machine = attrs.evolve(machine, net=tap.fitted(machine.net, machine.cpus))
    if machine.hugepages == HUGEPAGES_AUTO:
        folder, why = hugepages.find(machine.memory)
        machine = attrs.evolve(machine, hugepages=folder or None)
        if why:
            said.append(f"no huge pages ({why}): ordinary pages")

    def each(disk: AnyDisk | None) -> AnyDisk | None:
        if not isinstance(disk, Disk):
            return disk
        options, changes = fitting.fitted(disk.path, disk.options, io_uring=io_uring)
        said.extend(f"{disk.path}: {change}" for change in changes)
        return attrs.evolve(disk, options=options)

    data = tuple(found for disk in machine.data if (found := each(disk)))
    machine = attrs.evolve(machine, boot=each(machine.boot), system=each(machine.system), data=data)
    return machine, tuple(said)
