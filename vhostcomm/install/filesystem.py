"""Make the system partition: an ext4 with the owners and modes of its archives, without root.

`mke2fs -d` writes the files, then debugfs sets owners and modes inside the file system. This needs neither a user
namespace, which many systems deny to users, nor fakeroot. Every system with mke2fs has debugfs too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from vhostcomm.errors import InstallError
from vhostcomm.install.tree import Node
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE, Partition
from vhostcomm.qemu.disk.tools import checked, failed, run
from vhostcomm.text import counted

BLOCK_SIZE: Final = 4096
LABEL: Final = "1.44.1-42218"
"""As in the genuine system, whose installer used that version of e2fsprogs."""

INODE_RATIO: Final = 16384
"""Bytes of the partition for each inode; mke2fs's own default."""

_CONFIG: Final = f"""\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = {BLOCK_SIZE}
inode_size = 256
inode_ratio = {INODE_RATIO}
[fs_types]
ext4 = {{
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}}
"""
"""The defaults of e2fsprogs 1.44. Newer versions enable features that the guest's kernel (4.4) lacks."""

_TIMEOUT: Final = 3600.0
"""Seconds for one tool, which writes a GiB or two."""

TOOLS: Final = ("mke2fs", "debugfs", "e2fsck")

_WHAT: Final = "the system partition"


def inodes(partition: Partition) -> int:
    """Return how many files and directories a partition can hold."""
    return partition.size * SECTOR_SIZE // INODE_RATIO - 16  # ext4 needs these itself


def make(image: Path, partition: Partition, tree: Path) -> None:
    """Create the file system in a partition of a raw image, with the files of a tree.

    Raises:
        DiskError: mke2fs is missing or fails.
    """
    config = image.with_name("mke2fs.conf")
    config.write_text(_CONFIG)
    offset, blocks = partition.start * SECTOR_SIZE, partition.size * SECTOR_SIZE // BLOCK_SIZE
    extended = f"offset={offset},nodiscard,root_owner=0:0"
    words = ("-q", "-F", "-t", "ext4", "-b", str(BLOCK_SIZE), "-L", LABEL, "-d", str(tree), "-E", extended)
    checked(
        "mke2fs", *words, image.name, str(blocks), folder=str(image.parent), MKE2FS_CONFIG=str(config), path=_WHAT, seconds=_TIMEOUT
    )  # fmt: skip
    config.unlink()


def set_owners(image: Path, partition: Partition, nodes: Mapping[str, Node]) -> None:
    """Set the owner and mode of every file.

    Raises:
        DiskError: debugfs is missing or fails.
        InstallError: debugfs reports that a command failed.
    """
    script = image.with_name("owners")
    with script.open("wb") as file:
        file.writelines(_lines(nodes))
    done = run(
        "debugfs",
        "-w",
        "-f",
        script.name,
        _opened(image, partition),
        folder=str(image.parent),
        path=_WHAT,
        seconds=_TIMEOUT,
    )
    if done.returncode != 0:
        raise failed("debugfs", _WHAT, done)
    # debugfs exits with 0 even if a command fails. It reports failures on standard error, below its version.
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("debugfs 1.")]
    if said:
        raise InstallError(f"debugfs could not set the owners of {counted(len(said), 'file')}; the first: {said[0]}")
    script.unlink()


def check(image: Path, partition: Partition) -> None:
    """Check the file system without changing it.

    Raises:
        DiskError: e2fsck is missing, or finds an error.
    """
    checked("e2fsck", "-f", "-n", _opened(image, partition), folder=str(image.parent), path=_WHAT, seconds=_TIMEOUT)


def _opened(image: Path, partition: Partition) -> str:
    return f"{image.name}?offset={partition.start * SECTOR_SIZE}"


def _lines(nodes: Mapping[str, Node]) -> Iterator[bytes]:
    for path, node in nodes.items():
        quoted = b'"/%s"' % os.fsencode(path).replace(b'"', b'""')
        for key, value in (("uid", f"{node.uid}"), ("gid", f"{node.gid}"), ("mode", f"0{node.mode:o}")):
            yield b"sif %s %s %s\n" % (quoted, key.encode(), value.encode())
