"""Enlarge an image."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vhostcomm.errors import DiskError, UsageError
from vhostcomm.qemu.disk.contents import refuse_other
from vhostcomm.qemu.disk.image import AnyPath, probe
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE
from vhostcomm.qemu.disk.tools import failed, run


def grow(path: AnyPath, size: int) -> int:
    """Enlarge an image to `size` bytes, as the guest sees them. Return the size before.

    The guest must not run, and has to enlarge its partitions and file systems itself.

    Raises:
        UsageError: the size isn't larger, or no whole number of sectors.
        DiskError: the image can't be read, is no disk or no regular file, or is open in a QEMU; or qemu-img is missing
            or fails.
    """
    image = probe(path)
    if not stat.S_ISREG(Path(image.path).stat().st_mode):
        raise DiskError(image.path, "a block device; grow it with the tools of its storage")
    refuse_other(image)
    if size <= image.size or size % SECTOR_SIZE:
        raise UsageError(
            f"{image.path} has {image.size} bytes, and {size} were requested: a disk can only grow, by sectors of "
            f"{SECTOR_SIZE} bytes"
        )
    name = os.path.abspath(image.path)  # noqa: PTH100  # a relative a:b would be a protocol; keeps links
    done = run("qemu-img", "resize", "-f", image.format.value, name, str(size), path=image.path)
    if "lock" in done.stderr and done.returncode != 0:
        raise DiskError(image.path, "a QEMU has it open; shut the guest down first: vhostcomm shutdown --wait 90")
    if done.returncode != 0:
        raise failed("qemu-img", image.path, done)
    return image.size
