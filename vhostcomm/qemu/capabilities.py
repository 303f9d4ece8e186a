"""The capabilities of a QEMU as a value; `vhostcomm.qemu.detect` finds them."""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

DEVICES: Final = (
    "isa-serial",
    "piix3-usb-uhci",
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
"""Devices to query one by one. Listing all devices loads every module, and a module of another QEMU package
makes QEMU 10 fail an assertion."""

UNTRIED: Final = "it was not tried"
"""`Capabilities.kvm_problem` of a QEMU that may have KVM."""


class Reconnect(Enum):
    """How a QEMU spells the reconnect delay of a socket; the value is the option."""

    SECONDS = "reconnect"
    MILLISECONDS = "reconnect-ms"

    @classmethod
    def of_version(cls, major: int, minor: int) -> Reconnect:
        """Choose by version, for a QEMU that can't be queried: 9.2 introduced the new option, 10.2 removed the old."""
        return cls.MILLISECONDS if (major, minor) >= (9, 2) else cls.SECONDS


@frozen
class Program:
    """A QEMU to run.

    Args:
        path: of the executable, or a name to find in PATH.
        data_dirs: directories of its BIOS and option ROMs (``-L``), if not the default ones.
    """

    path: str = "qemu-system-x86_64"
    data_dirs: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The first words of the command."""
        return [self.path, *(word for folder in self.data_dirs for word in ("-L", folder))]


@frozen
class Capabilities:
    """The capabilities of a QEMU.

    Args:
        program: the QEMU.
        version: its own description of its version, for people.
        reconnects: how it spells the reconnect delay of a socket; None if it can't reconnect.
        memory_lock: it can lock memory (``-overcommit mem-lock=on``).
        sandbox: ``-sandbox``: QEMU and the kernel support seccomp.
        machines: machine types, including aliases.
        devices: those of `DEVICES` that it has.
        io_uring: it is built with io_uring for disks.
        kvm_problem: why KVM can't be used; "" when it was tried and works.
    """

    program: Program
    version: str
    reconnects: Reconnect | None
    memory_lock: bool
    sandbox: bool
    machines: frozenset[str]
    devices: frozenset[str]
    io_uring: bool
    kvm_problem: str

    @classmethod
    def assumed(cls, program: Program, reconnects: Reconnect) -> Capabilities:
        """Of a QEMU that can't be asked: what every one for x86_64 from 7.2 on has."""
        return cls(
            program=program,
            version="",
            reconnects=reconnects,
            memory_lock=True,
            sandbox=True,
            machines=frozenset({"pc", "q35"}),
            devices=frozenset(DEVICES),
            io_uring=True,
            kvm_problem=UNTRIED,
        )
