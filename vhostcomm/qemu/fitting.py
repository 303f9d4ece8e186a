"""Adapt a machine to this host."""

from __future__ import annotations

from typing import Final

import attrs

from vhostcomm.qemu import hugepages, tap
from vhostcomm.qemu.disk import fitting
from vhostcomm.qemu.machine import AnyDisk, Disk, Machine, TapNet

HUGEPAGES_AUTO: Final = "auto"
"""Instead of a directory: find one with enough free pages, or use ordinary pages."""


def fitted(machine: Machine, io_uring: bool) -> tuple[Machine, tuple[str, ...]]:
    """Return the machine as this host can run it, and a sentence for each change.

    `io_uring` is whether QEMU is built with it.
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
