"""A guest's disks: the format of an image, and how the guest reads its partition table.

`layouts` is the table of known partition layouts, `image` determines an image's format, `inspection` compares an image
with the layouts, `creation` makes a new system disk, and `tools` runs sfdisk and qemu-img.
"""

from vhostcomm.qemu.disk.creation import MAX_SIZE, MIN_SIZE, init
from vhostcomm.qemu.disk.image import ImageFormat, image_format
from vhostcomm.qemu.disk.inspection import inspect, warning
from vhostcomm.qemu.disk.layouts import LAYOUTS, SECTOR_SIZE, VDSM, Layout, Partition

__all__ = [
    "LAYOUTS",
    "MAX_SIZE",
    "MIN_SIZE",
    "SECTOR_SIZE",
    "VDSM",
    "ImageFormat",
    "Layout",
    "Partition",
    "image_format",
    "init",
    "inspect",
    "warning",
]
