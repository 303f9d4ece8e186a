"""Add a data disk to the directory of an installed guest."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path

from vhostcomm.config.machine import CONFIGURATION
from vhostcomm.errors import DiskError, InstallError
from vhostcomm.linux.private_files import replace_private
from vhostcomm.linux.system_errors import explain
from vhostcomm.qemu.disk.image import QCOW2_SUFFIX, ImageFormat
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE
from vhostcomm.qemu.disk.options import split
from vhostcomm.qemu.disk.tools import checked
from vhostcomm.qemu.machine import DATA_SLOTS

_DATA_LINE = re.compile(r"^data = \[[^\]\n]*\]$", re.MULTILINE)


def add(folder: Path, size: int, image_format: ImageFormat | None) -> tuple[str, ImageFormat]:
    """Create an empty data disk in a guest's directory and add it to its file. The guest sees it from its next start.

    Args:
        folder: a directory that `install` made.
        size: of the disk, in bytes.
        image_format: of the disk; None for that of the guest's last data disk, by its name.

    Returns:
        The disk's file name in the directory, and its format.

    Raises:
        InstallError: the directory is not an installed guest, has no free slot, or has a file with an unusual layout.
        DiskError: the disk can't be created.
    """
    file = folder / CONFIGURATION
    try:
        text = file.read_text()
        tables = list(tomllib.loads(text)["guests"].values())
        (machine,) = [table["machine"] for table in tables]
        disks = list(machine["data"])
    except OSError as error:
        raise InstallError(f"{file}: {explain(error)}; give a directory that `vhostcomm install` made") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InstallError(f"{file}: does not have exactly one guest with machine.data; add the disk by hand") from None
    if len(disks) >= DATA_SLOTS:
        raise InstallError(f"{folder}: already has {len(disks)} data disks; a guest can have {DATA_SLOTS}")
    if size % SECTOR_SIZE:
        raise InstallError(f"a data disk of {size} bytes: give a multiple of {SECTOR_SIZE} bytes")
    if image_format is None:
        image_format = ImageFormat.QCOW2 if disks and split(disks[-1])[0].endswith(QCOW2_SUFFIX) else ImageFormat.RAW
    name = _free_name(folder, {ImageFormat.RAW: "img", ImageFormat.QCOW2: "qcow2"}[image_format])
    line = f"data = {json.dumps([*disks, name])}"
    changed = _DATA_LINE.sub(lambda _: line, text)
    if len(_DATA_LINE.findall(text)) != 1 or tomllib.loads(changed) == tomllib.loads(text):
        raise InstallError(f"{file}: its machine.data isn't one line; add the disk by hand, as in: {line}")
    _make(folder, name, size, image_format)
    try:
        replace_private(file, [changed.encode()], mode=stat.S_IMODE(file.stat().st_mode), shared=True)
    except OSError as error:
        (folder / name).unlink()
        raise InstallError(f"{file}: {explain(error)}; no disk was added") from None
    return name, image_format


def _free_name(folder: Path, suffix: str) -> str:
    number = 2
    while (folder / f"data{number}.{suffix}").exists():
        number += 1
    return f"data{number}.{suffix}"


def _make(folder: Path, name: str, size: int, image_format: ImageFormat) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".disk.") as work:
            made = Path(work, name)
            if image_format is ImageFormat.RAW:
                made.touch()
                os.truncate(made, size)
            else:
                checked(
                    "qemu-img", "create", "-q", "-f", "qcow2", name, str(size), path=str(folder / name), folder=work
                )
            made.chmod(0o600)
            os.link(made, folder / name)
    except OSError as error:
        raise DiskError(str(folder / name), f"can't be created: {explain(error)}") from None
