"""What a QEMU can do, as a value; `vhostcomm.qemu.detect` finds it out."""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

DEVICES: Final = (
    "isa-serial",
    "piix3-usb-uhci",
    "pvpanic",
    "pvpanic-pci",
    "scsi-hd",
    "vhost-scsi-pci",
    "virtio-balloon-pci",
    "virtio-net-pci",
    "virtio-rng-pci",
    "virtio-scsi-pci",
    "virtio-serial-pci",
    "virtserialport",
)
"""What is asked for, one by one: listing all of them loads every module, and one left from another QEMU
package ends QEMU 10 with a failed assertion."""


class Reconnect(Enum):
    """How a QEMU spells that a socket is connected to again; the value is the option."""

    SECONDS = "reconnect"
    MILLISECONDS = "reconnect-ms"

    @classmethod
    def of_version(cls, major: int, minor: int) -> Reconnect:
        """Of a QEMU that can't be asked: the new option is there since 9.2, the old one until 10.1."""
        return cls.MILLISECONDS if (major, minor) >= (9, 2) else cls.SECONDS


class MemoryLock(Enum):
    """How a QEMU spells that memory is locked."""

    OVERCOMMIT = "-overcommit mem-lock=on"
    REALTIME = "-realtime mlock=on"


@frozen
class Program:
    """A QEMU to run.

    Args:
        path: of the executable, or its name to be found in PATH.
        data_dirs: where it finds its BIOS and option ROMs (``-L``), when not where it was built for.
    """

    path: str = "qemu-system-x86_64"
    data_dirs: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The beginning of its argument list."""
        return [self.path, *(word for folder in self.data_dirs for word in ("-L", folder))]


@frozen
class Capabilities:
    """What a QEMU can do.

    Args:
        program: which.
        version: as it says itself, for people.
        reconnect: a socket chardev takes ``reconnect`` (seconds; deprecated in 9.2, gone in 10.2).
        reconnect_ms: it takes ``reconnect-ms`` (since 9.2).
        hpet_property: ``-machine hpet=off`` instead of ``-no-hpet``.
        memory_lock: how memory is locked; None when it can't be.
        sandbox: ``-sandbox``: built with seccomp, on a kernel that has it.
        machines: machine types, aliases too.
        devices: those of `DEVICES` that it has.
        vhost_scsi: the properties of vhost-scsi-pci; empty without the device.
        free_page_reporting: its balloon can give back what the guest doesn't use.
        io_uring: it is built with io_uring for disks.
        kvm_problem: why KVM can't be used; "" when it was tried and works.
    """

    program: Program
    version: str
    reconnect: bool
    reconnect_ms: bool
    hpet_property: bool
    memory_lock: MemoryLock | None
    sandbox: bool
    machines: frozenset[str]
    devices: frozenset[str]
    vhost_scsi: frozenset[str]
    free_page_reporting: bool
    io_uring: bool
    kvm_problem: str

    @property
    def kvm(self) -> bool:
        return not self.kvm_problem

    @property
    def reconnects(self) -> Reconnect | None:
        """How it spells that a socket is connected to again; None when it can't."""
        if self.reconnect_ms:
            return Reconnect.MILLISECONDS
        return Reconnect.SECONDS if self.reconnect else None
