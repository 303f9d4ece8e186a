"""Build QEMU's arguments for a disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vhostcomm.qemu.argument_format import options
from vhostcomm.qemu.machine import Disk, VhostDisk

VHOST_SETTINGS: Final = {
    "virtqueue_size": "256",
    "cmd_per_lun": "250",
    "num_queues": "1",
    "max_sectors": "16384",
    "boot_tpgt": "1",
}
"""The genuine host's settings, except set_driverok=off, which only its own QEMU knows."""

DISK_DRIVERS: Final = ("virtio-scsi-pci", "scsi-hd")
"""The devices of a disk in a file."""


def file_disk(disk: Disk, slot: int, name: str, bootindex: int, *, bus: str = "pci.0") -> Iterator[str]:
    """Build the arguments for a disk in a file or a block device, with its own controller.

    `slot` and `bus` are the controller's, `name` is the disk's id.
    """
    how = disk.options
    controller = {"id": f"hw-{name}"}
    if how.iothread:
        yield from ("-object", f"iothread,id=io-{name}")
        controller["iothread"] = f"io-{name}"
    yield from ("-device", options("virtio-scsi-pci", controller | {"bus": bus, "addr": f"{slot:#x}"}))
    # QEMU never parses an absolute path, or one with ./, as a protocol such as nbd:.
    path = disk.path if disk.path.startswith("/") else f"./{disk.path}"
    drive = {"file": path, "if": "none", "id": f"drive-{name}", "format": disk.format.value}
    drive |= {"cache": how.cache.value, "aio": how.effective_aio.value}
    drive |= {"discard": "unmap" if how.discard else "ignore", "detect-zeroes": how.detect_zeroes.value}
    yield from ("-drive", options("", drive | ({"snapshot": "on"} if disk.snapshot else {})))
    seen = {"bus": f"hw-{name}.0", "channel": "0", "scsi-id": "0", "lun": "0", "drive": f"drive-{name}", "id": name}
    seen |= {"bootindex": str(bootindex)} | ({"rotation_rate": str(how.rotation_rate)} if how.rotation_rate else {})
    yield from ("-device", options("scsi-hd", seen | ({"serial": how.serial} if how.serial else {})))


def vhost_disk(disk: VhostDisk, slot: int, bootindex: int, *, bus: str = "pci.0") -> Iterator[str]:
    """Build the arguments for a disk of the kernel's SCSI target."""
    properties = {"id": f"vdisk_{disk.wwpn.removeprefix('naa.')}", "wwpn": disk.wwpn} | VHOST_SETTINGS
    properties |= {"bootindex": str(bootindex), "bus": bus, "addr": f"{slot:#x}"}
    yield from ("-device", options("vhost-scsi-pci", properties))
