"""Recognise files that are clearly no disks, by their content."""

from __future__ import annotations

import os
import shlex
from codecs import getincrementaldecoder
from typing import Final

from vhostcomm.errors import DiskError
from vhostcomm.qemu.disk.image import MBR_SIGNATURE, SIGNATURE_OFFSET, Image, ImageFormat
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE
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


def refuse_other(image: Image) -> None:
    """Reject a raw image whose content is no disk's. It may be empty, as a new data disk is.

    Raises:
        DiskError: it looks like text, or has no whole sectors and no known content.
    """
    if image.format is not ImageFormat.RAW or any(image.head.startswith(magic, at) for at, magic in _CONTENTS):
        return
    if image.size % SECTOR_SIZE:
        sized = f"truncate -s %{SECTOR_SIZE} {shlex.quote(image.path)}"
        raise DiskError(image.path, f"{counted(image.size, 'byte')}, not whole sectors; if it is a disk: {sized}")
    with open(image.path, "rb") as file:  # noqa: PTH123
        file.seek(-SECTOR_SIZE, os.SEEK_END)
        last = file.read()
    if _is_text(image.head) and _is_text(last):
        raise DiskError(image.path, "looks like text; give a guest's disk, such as data.img")


def _is_text(part: bytes) -> bool:
    """Return whether a part of a file is UTF-8 without a NUL. Encrypted and empty disks have NULs in their first MiB."""
    # A character may be cut off at each end.
    text = part.lstrip(bytes(range(0x80, 0xC0)))
    try:
        getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return b"\0" not in text
