"""Inspect how a guest reads a disk's partition table."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from vhostcomm.errors import DiskError
from vhostcomm.linux.system_errors import temporary_folder
from vhostcomm.qemu.disk.image import HEAD_SIZE, AnyPath, Image, ImageFormat, probe
from vhostcomm.qemu.disk.layouts import CONTAINER, LAYOUTS, SECTOR_SIZE, VDSM, Layout, Partition
from vhostcomm.qemu.disk.tools import checked, failed, run

MBR: Final = "dos"
GPT: Final = "gpt"
_GPT_PROTECTIVE: Final = 0xEE
"""The type of the MBR partition that protects a GPT from old programs."""


@frozen
class Inspection:
    """A system disk, as its guest reads it.

    Args:
        path: the image.
        format: raw or qcow2.
        size: of the disk that the guest sees, in bytes.
        table: the kind of partition table as sfdisk names it (``dos``, ``gpt`` …), or "" for none.
        partitions: those of an MBR by number; empty for other tables.
        layout: the known layout; None for another one, which the guest calls version 0.
        why: why the layout isn't VDSM's, one sentence each; empty if it is.
        is_container: whether it is the layout of the container vdsm/virtual-dsm, which the guest calls version 0 too.
    """

    path: str
    format: ImageFormat
    size: int
    table: str
    partitions: Mapping[int, Partition] = field(hash=False)
    layout: Layout | None
    why: tuple[str, ...]
    is_container: bool = False

    @property
    def is_vdsm(self) -> bool:
        return self.layout is VDSM

    @property
    def guest_prints(self) -> tuple[str, ...]:
        """The lines about the system disk that a guest prints at boot, as VDSM 7.0 words them.

        The number is the exit status of `synocheckpartition`. Later versions print "Skip checking rootfs." instead of
        the last line.
        """
        if self.layout is not None:
            return (f"Partition Version={self.layout.version}",)
        return ("Partition Version=0", "Partition layout is not DiskStation style.", "NOT EXECUTE /sbin/e2fsck.")


def inspect(path: AnyPath) -> Inspection:
    """Read a disk's partition table as its guest does.

    Works with raw and qcow2 images and block devices, without root if they are readable, and while a guest uses them.
    It writes nothing. It blocks while child processes run, so async code calls it in a thread.

    Raises:
        DiskError: the image can't be read, or a tool is missing.
    """
    image = probe(path)
    if image.size < SECTOR_SIZE:
        raise DiskError(image.path, f"{image.size} bytes; a partition table alone takes {SECTOR_SIZE}")
    table, partitions = _read_table(image)
    size_in_sectors = image.size // SECTOR_SIZE
    # The guest's kernel truncates partitions that extend past the disk's end.
    fits = all(each.end <= size_in_sectors for number, each in partitions.items() if number in (1, 2))
    layout = next((each for each in LAYOUTS if fits and not any(each.differences(partitions))), None)
    why = () if layout is VDSM else tuple(_why_not(table, partitions, layout, size_in_sectors))
    is_container = fits and not any(CONTAINER.differences(partitions))
    return Inspection(image.path, image.format, image.size, table, partitions, layout, why, is_container)


def warning(path: AnyPath) -> str:
    """Return a warning to show before a guest starts from this system disk: what is wrong, and what the guest will print.

    "" if the guest would not complain. For a disk that can't be inspected, the reason. This never raises, since the guest
    starts anyway.
    """
    try:
        found = inspect(path)
    except DiskError as error:
        return f"{error} (partition layout not checked)"
    if found.layout is not None or found.is_container:
        return ""
    return (
        f"{found.path}: not partitioned as a system disk: {', '.join(found.why)}; the guest won't check its file systems, "
        f"and prints {found.guest_prints[1]!r}; details: vhostcomm disk inspect {shlex.quote(str(found.path))}"
    )


def _why_not(
    table: str, partitions: Mapping[int, Partition], layout: Layout | None, size_in_sectors: int
) -> Iterator[str]:
    if table == GPT:
        yield "its partition table is a GPT; guests know only MBR layouts"
    elif table != MBR:
        yield f"its partition table is of type {table}, not an MBR" if table else "it has no partition table"
    else:
        if layout is not None:
            yield f"it has {layout} of the known layouts; VDSM has {VDSM}"
        yield from VDSM.differences(partitions)
        for number in (1, 2):
            if number in partitions and partitions[number].end > size_in_sectors:
                yield f"partition {number} ends at sector {partitions[number].end}, the disk at {size_in_sectors}"


def _read_table(image: Image) -> tuple[str, dict[int, Partition]]:
    """Read the kind of the table and the partitions of an MBR, with sfdisk.

    sfdisk reads a copy of the disk's start, in memory and of the disk's size. So it never touches the image or device,
    and counts sectors of 512 bytes, as QEMU's disks do.
    """
    try:
        with open(os.memfd_create("partition-table"), "wb", buffering=0) as copy:  # noqa: PTH123
            copy.write(_start(image))
            copy.truncate(image.size)
            done = run("sfdisk", "--json", f"/dev/fd/{copy.fileno()}", path=image.path, pass_fds=[copy.fileno()])
    except OSError as error:
        raise DiskError(image.path, f"its start can't be copied: {error.strerror}") from None
    if done.returncode != 0:
        if "does not contain a recognized partition table" in done.stderr:
            return "", {}
        raise failed("sfdisk", image.path, done)
    table = json.loads(done.stdout)["partitiontable"]
    if table["label"] != MBR:
        return table["label"], {}
    partitions = {
        int(re.split(r"\D", entry["node"])[-1]): Partition(entry["start"], entry["size"], int(entry["type"], 16))
        for entry in table.get("partitions", ())
    }
    if any(partition.type == _GPT_PROTECTIVE for partition in partitions.values()):
        return GPT, {}  # sfdisk considers the GPT damaged
    return MBR, partitions


def _start(image: Image) -> bytes:
    """Return the first bytes of the disk inside an image."""
    if image.format is ImageFormat.RAW:
        return image.head
    with tempfile.TemporaryDirectory(prefix="vhostcomm-disk-", dir=temporary_folder()) as folder:
        copy = Path(folder, "start")
        # Absolute, since qemu-img parses `a:b` as a protocol. -U, since a running guest locks the image.
        checked(
            "qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", f"bs={HEAD_SIZE}", "count=1",
            f"if={Path(image.path).absolute()}", f"of={copy}",
            path=image.path,
        )  # fmt: skip
        return copy.read_bytes()[: image.size]
