"""Determine the format of a disk image from its first bytes.

A guest with a *raw* disk can write anything to sector 0, including a qcow2 header with any file of the host as its
backing file. A program that determines the format from the content at the next start would open that file and give it
to the guest. Without a format, QEMU warns and rejects such writes to sector 0. With ``format=raw``, QEMU allows them.
So:

- vhostcomm determines the format once per start, before QEMU runs, and passes it to QEMU as ``format=``.
- A qcow2 that reads from other files is accepted only if its *name* ends in ``.qcow2``: a guest can change the content,
  but never the name. A qcow2 without other files can harm only the guest itself.
- A raw image with such a name is rejected.

Other formats and archives are recognised, to reject them: as raw images they would not boot.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import struct
from enum import Enum
from typing import Final

from attrs import field, frozen

from vhostcomm.errors import DiskError

HEAD_SIZE: Final = 1 << 20
"""Bytes read from the start: they contain the header of any format, an MBR, and a GPT with its entries."""

QCOW2_SUFFIX: Final = ".qcow2"

AnyPath = str | os.PathLike[str]


class ImageFormat(Enum):
    """A format that vhostcomm accepts; the value is its name in QEMU's ``format=``."""

    RAW = "raw"
    QCOW2 = "qcow2"


@frozen
class Image:
    """A disk image. `size` is the size that the guest sees, in bytes; `head` the first bytes of the file."""

    path: str
    format: ImageFormat
    size: int
    head: bytes = field(repr=False)


def probe(path: AnyPath) -> Image:
    """Determine the format and size of an image file or block device.

    Raises:
        DiskError: it can't be read, has an unsupported format, or may be a trap.
    """
    name = os.fspath(path)
    refuse_target(name)
    try:
        kind = os.stat(name).st_mode  # noqa: PTH116  # before open(), which would block on a FIFO
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise DiskError(name, f"{_KINDS.get(stat.S_IFMT(kind), 'something else')}, not an image or a block device")
        with open(name, "rb") as file:  # noqa: PTH123
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(HEAD_SIZE)
    except FileNotFoundError:
        raise DiskError(
            name,
            "no such file; `vhostcomm install` makes a guest's disks from a .pat, `vhostcomm disk init` an empty system disk",
        ) from None
    except PermissionError:
        raise DiskError(name, f"user {os.geteuid()} may not read it; QEMU needs read and write access too") from None
    except OSError as error:
        raise DiskError(name, f"can't be read: {error.strerror}") from None
    if size == 0:
        raise DiskError(name, "empty (0 bytes); create a system disk with `vhostcomm disk init` and a new name")
    return _recognise(name, size, head)


def refuse_target(name: str) -> None:
    """Reject the name of a vhost-scsi target."""
    if name.startswith("naa."):
        raise DiskError(
            name,
            "a vhost-scsi target, which can't be inspected here; give the file or block device behind it (if a file "
            "has this name: its whole path)",
        )


_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}

_QCOW_MAGIC: Final = b"QFI\xfb"
_QCOW2_VERSIONS: Final = (2, 3)
_QCOW2_HEADER: Final = struct.Struct(">4xIQ8xQ40xQ")
"""Version, offset of the backing file's name, the disk's size in bytes, incompatible features (version 3)."""
_EXTERNAL_DATA: Final = 1 << 2
"""The incompatible feature for data in another file."""

_OTHERS: Final = (
    # QEMU's name, offset, magic
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vhdx", 0, b"vhdxfile"),
    ("vpc", 0, b"conectix"),  # a dynamic VHD; a fixed one is raw with a footer
    ("qed", 0, b"QED\0"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
)

_ARCHIVES: Final = (
    # description, offset, magic, the command that unpacks it
    ("a gzip file", 0, b"\x1f\x8b\x08", "gunzip --keep"),
    ("an xz file", 0, b"\xfd7zXZ\0", "unxz --keep"),
    ("a bzip2 file", 0, b"BZh", "bunzip2 --keep"),
    ("a zstd file", 0, b"\x28\xb5\x2f\xfd", "unzstd"),
    ("an lz4 file", 0, b"\x04\x22\x4d\x18", "unlz4"),
    ("a zip archive", 0, b"PK\x03\x04", "unzip"),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", "7z x"),
    ("a tar archive", 257, b"ustar", "tar -xf"),
    ("a cpio archive", 0, b"070701", "cpio -idF"),
    ("a cpio archive", 0, b"070702", "cpio -idF"),
    ("a cpio archive", 0, b"070707", "cpio -idF"),
)

_TAR_HEADER: Final = 512
_TAR_SUM: Final = slice(148, 156)
"""The octal sum of the header's bytes, with its own field counted as spaces. Tar had no magic before POSIX."""

SIGNATURE_OFFSET: Final = 510
MBR_SIGNATURE: Final = b"\x55\xaa"
"""The end of a boot sector. A disk with it is bootable or partitioned, so it is no archive whatever it begins with."""


def _recognise(name: str, size: int, head: bytes) -> Image:
    for other, offset, magic in _OTHERS:
        if head.startswith(magic, offset):
            raise _refused(name, other)
    if not head.startswith(MBR_SIGNATURE, SIGNATURE_OFFSET):
        for archive, offset, magic, unpack in _ARCHIVES:
            if head.startswith(magic, offset):
                raise _packed(name, archive, unpack)
        if _is_old_tar(head):
            raise _packed(name, "a tar archive", "tar -xf")
    if head.startswith(_QCOW_MAGIC):
        return Image(name, ImageFormat.QCOW2, _qcow2_size(name, head), head)
    if name.endswith(QCOW2_SUFFIX):
        raise DiskError(name, f"named {QCOW2_SUFFIX}, but it is not a qcow2 image; rename it if it is a raw image")
    return Image(name, ImageFormat.RAW, size, head)


def _is_old_tar(head: bytes) -> bool:
    header = head[:_TAR_HEADER]
    stored = header[_TAR_SUM].rstrip(b" \0").lstrip(b" ")
    if len(header) < _TAR_HEADER or not header[0] or not re.fullmatch(rb"[0-7]{1,7}", stored):
        return False
    counted = bytearray(header)
    counted[_TAR_SUM] = b" " * 8
    return sum(counted) == int(stored, 8)


def _packed(name: str, archive: str, unpack: str) -> DiskError:
    return DiskError(name, f"{archive}, not a disk image; unpack it and give its content: {unpack} {shlex.quote(name)}")


def _qcow2_size(name: str, head: bytes) -> int:
    if len(head) < _QCOW2_HEADER.size:
        raise DiskError(name, f"a qcow2 cut off in its header ({len(head)} bytes)")
    version, backing_file, size, features = _QCOW2_HEADER.unpack_from(head)
    if version not in _QCOW2_VERSIONS:
        raise _refused(name, "qcow" if version == 1 else f"qcow2 (its version {version})")
    elsewhere = backing_file or (version > 2 and features & _EXTERNAL_DATA)
    if elsewhere and not name.endswith(QCOW2_SUFFIX):
        raise DiskError(
            name,
            "a qcow2 that reads from another file, but its name doesn't say so; a guest with it as a raw disk may have "
            f"written that, to read this host's files. If you made it, rename it to end in {QCOW2_SUFFIX}; "
            "`qemu-img info -f qcow2` shows the other file",
        )
    return int(size)


def _refused(name: str, other: str) -> DiskError:
    why = f"an image of format {other}; vhostcomm accepts raw and qcow2: `qemu-img convert -O qcow2` it"
    return DiskError(name, why)
