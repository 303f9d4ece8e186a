"""Create an empty system disk with VDSM's partition layout."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from vhostcomm.errors import DiskError, UsageError
from vhostcomm.linux.system_errors import explain
from vhostcomm.qemu.disk.image import QCOW2_SUFFIX, AnyPath, ImageFormat, refuse_target
from vhostcomm.qemu.disk.layouts import CONTAINER, SECTOR_SIZE, VDSM, Layout
from vhostcomm.qemu.disk.tools import checked

MIN_SIZE: Final = VDSM.third_start * SECTOR_SIZE + (1 << 20)
"""Bytes (4609 MiB): leaves one MiB for the third partition."""

MAX_SIZE: Final = SECTOR_SIZE << 32
"""Bytes (2 TiB): an MBR counts sectors in 32 bits."""

_MBR_SECTORS: Final = (1 << 32) - 1
"""Last sector that sfdisk 2.41 allows in an MBR; 2.38 allows one more. Both make the same disk with this limit."""


def init(path: AnyPath, size: int, image_format: ImageFormat = ImageFormat.RAW) -> None:
    """Create an empty system disk of `size` bytes, as the guest sees them: VDSM's partition table, no file systems.

    The file is sparse, has mode 0600, and appears complete or not at all. Like `inspect`, this blocks while child
    processes run.

    Raises:
        UsageError: an impossible size, or a raw image with a name in ``.qcow2``.
        DiskError: the path exists or can't be written, or a tool is missing.
    """
    name = os.fspath(path)
    refuse_target(name)
    if not MIN_SIZE <= size <= MAX_SIZE or size % SECTOR_SIZE:
        raise UsageError(
            f"{name}: a size of {size} bytes; VDSM's layout needs {MIN_SIZE >> 20}M to {MAX_SIZE >> 40}T, "
            f"in sectors of {SECTOR_SIZE} bytes"
        )
    if image_format is ImageFormat.RAW and name.endswith(QCOW2_SUFFIX):
        raise UsageError(
            f"{name}: the name ends in {QCOW2_SUFFIX}, but the format is raw; choose --format qcow2, or another name"
        )
    if os.path.lexists(name):
        raise _occupied(name)
    target = Path(name).absolute()
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            made = _make(Path(folder), size, image_format, name)
            made.chmod(0o600)
            # Not a rename, which would overwrite a file that another process created meanwhile.
            os.link(made, target)
    except FileExistsError:
        raise _occupied(name) from None
    except FileNotFoundError:
        raise DiskError(name, f"there is no directory {target.parent}; make it first") from None
    except OSError as error:
        raise DiskError(name, f"can't be made in {target.parent}: {explain(error)}") from None


def _make(folder: Path, size: int, image_format: ImageFormat, name: str) -> Path:
    raw = folder / "raw"
    partition(raw, size, VDSM, path=name)
    if image_format is ImageFormat.RAW:
        return raw
    qcow2 = folder / "qcow2"
    checked("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2), path=name)
    return qcow2


def partition(raw: Path, size: int, layout: Layout, *, path: AnyPath) -> None:
    """Create a sparse raw image of `size` bytes with the partition table of a layout, and nothing else.

    A third partition has the rest, except in the container's layout. `path` is the image's name in errors.

    Raises:
        DiskError: sfdisk is missing or fails.
        OSError: the file can't be created.
    """
    raw.touch()
    os.truncate(raw, size)
    table = _script(size, layout)
    checked("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(raw), path=os.fspath(path), stdin=table)


def _occupied(name: str) -> DiskError:
    return DiskError(name, "already exists and was left unchanged; remove it or choose another name")


def _script(size: int, layout: Layout) -> str:
    """Write the sfdisk script for the partitions of a disk of this size."""
    sizes = [(each.start, each.size, each.type) for each in (layout.first, layout.second)]
    if layout is not CONTAINER:
        rest = min(size // SECTOR_SIZE, _MBR_SECTORS) - layout.third_start
        sizes.append((layout.third_start, rest, layout.third_type))
    lines = [f"start={start}, size={length}, type={kind:x}" for start, length, kind in sizes]
    return "\n".join(["label: dos", "unit: sectors", *lines])
