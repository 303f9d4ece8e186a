"""Adapt a machine to this host: its tap interface, huge pages and disks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import attrs

from vhostcomm.errors import QemuError
from vhostcomm.qemu.disk import io_modes
from vhostcomm.qemu.machine import AnyDisk, Disk, Machine, TapNet

HUGEPAGES_AUTO: Final = "auto"
"""Instead of a directory: find one with enough free pages, or use ordinary pages."""

_VHOST: Final = "/dev/vhost-net"
_TAP_FLAGS: Final = "/sys/class/net/{interface}/tun_flags"
_MULTI_QUEUE: Final = 0x100
"""A flag of tap interfaces, in <linux/if_tun.h>."""
_QUEUES_MAX: Final = 8
"""Maximum queues by default: each has a kernel thread with vhost, and more were not measured to help."""

_POOLS: Final = "/sys/kernel/mm/hugepages"
_MOUNTS: Final = "/proc/self/mounts"
_HUGE: Final = 2 << 20
"""Bytes of the smallest huge page of x86-64."""
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def fitted(machine: Machine, io_uring: bool) -> tuple[Machine, tuple[str, ...]]:
    """Return the machine as this host can run it, and a sentence for each change.

    `io_uring` is whether QEMU is built with it.
    """
    said: list[str] = []
    if isinstance(machine.net, TapNet):
        machine = attrs.evolve(machine, net=fitted_tap(machine.net, machine.cpus))
    if machine.hugepages == HUGEPAGES_AUTO:
        folder, why = find_hugepages(machine.memory)
        machine = attrs.evolve(machine, hugepages=folder or None)
        if why:
            said.append(f"no huge pages ({why}): ordinary pages")

    def each(disk: AnyDisk | None) -> AnyDisk | None:
        if not isinstance(disk, Disk):
            return disk
        options, changes = io_modes.fitted(disk.path, disk.options, io_uring=io_uring)
        said.extend(f"{disk.path}: {change}" for change in changes)
        return attrs.evolve(disk, options=options)

    data = tuple(found for disk in machine.data if (found := each(disk)))
    machine = attrs.evolve(machine, boot=each(machine.boot), system=each(machine.system), data=data)
    return machine, tuple(said)


def fitted_tap(net: TapNet, cpus: int) -> TapNet:
    """Fill in the missing settings: vhost if it can be opened, and one queue for each virtual CPU.

    An interface made for several queues can't be opened for only one, nor the reverse.
    """
    vhost = os.access(_VHOST, os.R_OK | os.W_OK) if net.vhost is None else net.vhost
    queues = net.queues or (max(2, min(cpus, _QUEUES_MAX)) if _has_several_queues(net.interface) else 1)
    return attrs.evolve(net, vhost=vhost, queues=queues)


def _has_several_queues(interface: str) -> bool:
    """Return whether a tap interface was made with ``multi_queue``."""
    try:
        flags = int(Path(_TAP_FLAGS.format(interface=interface)).read_text(), 16)
    except (OSError, ValueError):  # no such interface; QEMU reports that
        return False
    return bool(flags & _MULTI_QUEUE)


def check_hugepages(folder: str) -> None:
    """Check that a directory is on a hugetlbfs: elsewhere, QEMU would use an ordinary file as memory.

    Raises:
        QemuError: it is not.
    """
    try:
        why = "" if os.statvfs(folder).f_bsize >= _HUGE else "not a hugetlbfs"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise QemuError(f"--hugepages {folder}: {why}; `findmnt -t hugetlbfs` lists them, and auto finds one")


def find_hugepages(memory: int, *, mounts: str = _MOUNTS, pools: str = _POOLS) -> tuple[str, str]:
    """Find a hugetlbfs directory with enough free pages for `memory` MiB; also return the reason if there is none."""
    problems = []
    for line in Path(mounts).read_text().splitlines():
        _, folder, kind, settings = line.split()[:4]
        if kind != "hugetlbfs":
            continue
        folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder)
        size = _page_size(settings)
        if not os.access(folder, os.W_OK):
            problems.append(f"{folder} can't be written to")
        elif (free := _free(pools, size)) * size < memory << 20:
            problems.append(f"{folder} has {free * size >> 20} MiB free of the {memory} MiB")
        else:
            return folder, ""
    return "", "; ".join(problems) or "no hugetlbfs is mounted"


def _page_size(settings: str) -> int:
    found = re.search(r"pagesize=([0-9]+)([KMG]?)", settings)
    return int(found[1]) * _UNITS[found[2]] if found else _HUGE


def _free(pools: str, size: int) -> int:
    try:
        return int(Path(pools, f"hugepages-{size >> 10}kB", "free_hugepages").read_text())
    except (OSError, ValueError):
        return 0
