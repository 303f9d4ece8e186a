"""Enlarge an image."""

from __future__ import annotations

import os
import shlex
import stat
from codecs import getincrementaldecoder
from pathlib import Path
from typing import Final

from vhostcomm.errors import DiskError, UsageError
from vhostcomm.qemu.disk.image import MBR_SIGNATURE, SIGNATURE_OFFSET, AnyPath, Image, ImageFormat, probe
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE
from vhostcomm.qemu.disk.tools import failed, run
from vhostcomm.text import counted

_CONTENTS: Final = (
    # offset, magic
    (SIGNATURE_OFFSET, MBR_SIGNATURE),  # MBR or GPT
    (1080, b"\x53\xef"),  # ext2 to ext4
    (65600, b"_BHRfS_M"),  # Btrfs
    (0, b"XFSB"),  # XFS
    (4086, b"SWAPSPACE2"),  # swap
    (536, b"LVM2 001"),  # LVM
    (0, b"LUKS\xba\xbe"),  # LUKS
    (4096, b"\xfc\x4e\x2b\xa9"),  # Linux RAID 1.2
)


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
    if why := _no_disk(image):
        raise DiskError(image.path, why)
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


def _no_disk(image: Image) -> str:
    """Return why the content of an image is no disk's, and what to do; empty if it may be one, as an empty one is."""
    if image.format is not ImageFormat.RAW or any(image.head.startswith(magic, at) for at, magic in _CONTENTS):
        return ""
    if image.size % SECTOR_SIZE:
        sized = f"truncate -s %{SECTOR_SIZE} {shlex.quote(image.path)}"
        return f"{counted(image.size, 'byte')}, not whole sectors; if it is a disk: {sized}"
    with open(image.path, "rb") as file:  # noqa: PTH123
        file.seek(-SECTOR_SIZE, os.SEEK_END)
        last = file.read()
    return "looks like text; give a guest's disk, such as data.img" if _is_text(image.head) and _is_text(last) else ""


def _is_text(part: bytes) -> bool:
    """Return whether a part of a file is UTF-8 without a NUL. Encrypted and empty disks have NULs in their first MiB."""
    # A character may be cut off at each end.
    text = part.lstrip(bytes(range(0x80, 0xC0)))
    try:
        getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return b"\0" not in text
