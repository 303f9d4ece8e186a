"""What a guest will make of a disk's partition table."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from vhostcomm.errors import DiskError
from vhostcomm.qemu.disk.image import HEAD_SIZE, AnyPath, Image, ImageFormat, probe
from vhostcomm.qemu.disk.layouts import CONTAINER, SECTOR_SIZE, VDSM, Layout, Partition, find_layout, guest_prints
from vhostcomm.qemu.disk.tools import checked, failed, run
from vhostcomm.system_errors import temporary_folder

MBR: Final = "dos"
GPT: Final = "gpt"
_GPT_PROTECTIVE: Final = 0xEE
"""The type of the one MBR partition that keeps old programs off a GPT."""


@frozen
class Inspection:
    """A system disk and what its guest will make of it.

    Args:
        path: the image.
        format: raw or qcow2.
        size: what the guest sees, in bytes.
        table: the kind of partition table in sfdisk's words (``dos``, ``gpt`` …), or "" for none.
        partitions: those of an MBR, by their numbers; empty for other tables.
        layout: the known layout that it has, or None, which the guest calls version 0.
        why: why it isn't VDSM's, a sentence each; empty if it is.
        is_container: it has the layout of the container vdsm/virtual-dsm, which the guest calls version 0 too.
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
    def sectors(self) -> int:
        return self.size // SECTOR_SIZE

    @property
    def is_vdsm(self) -> bool:
        return self.layout is VDSM

    @property
    def guest_prints(self) -> tuple[str, ...]:
        return guest_prints(self.layout)


def inspect(path: AnyPath) -> Inspection:
    """Read a disk's partition table as its guest will.

    Works on raw and qcow2 images and on block devices, without root where they can be read, also while
    a guest runs from them. Nothing is written. It waits for child processes: call it from a thread
    where that matters.

    Raises:
        DiskError: it isn't an image that can be read, or a tool for that is missing.
    """
    image = probe(path)
    if image.size < SECTOR_SIZE:
        raise DiskError(image.path, f"{image.size} bytes; a partition table alone takes {SECTOR_SIZE}")
    table, partitions = _read_table(image)
    size_in_sectors = image.size // SECTOR_SIZE
    # The guest's kernel cuts off what a table claims behind the disk's end.
    fits = all(each.end <= size_in_sectors for number, each in partitions.items() if number in (1, 2))
    layout = find_layout(partitions) if fits else None
    why = () if layout is VDSM else tuple(_why_not(table, partitions, layout, size_in_sectors))
    is_container = fits and not any(CONTAINER.differences(partitions))
    return Inspection(image.path, image.format, image.size, table, partitions, layout, why, is_container)


def warning(path: AnyPath) -> tuple[str, ...]:
    """What to warn of before a guest starts from this system disk, a line each: what it would print, and why.

    Nothing where the guest wouldn't complain. A disk that can't be inspected gives the reason for that;
    this never raises, since the guest goes on too.
    """
    try:
        found = inspect(path)
    except DiskError as error:
        return (f"{error} (partition layout not checked)",)
    if found.layout is not None or found.is_container:
        return ()
    return (*found.guest_prints, *(f"{found.path}: {reason}" for reason in found.why))


def _why_not(
    table: str, partitions: Mapping[int, Partition], layout: Layout | None, size_in_sectors: int
) -> Iterator[str]:
    if table == GPT:
        yield "its partition table is a GPT; the layouts a guest knows are those of an MBR"
    elif table != MBR:
        yield f"its partition table is of type {table}, not an MBR" if table else "it has no partition table"
    else:
        if layout is not None:
            yield f"this is {layout} of the layouts a guest knows; VDSM's is {VDSM}"
        yield from VDSM.differences(partitions)
        for number in (1, 2):
            if number in partitions and partitions[number].end > size_in_sectors:
                yield f"partition {number} ends at sector {partitions[number].end}, the disk at {size_in_sectors}"


def _read_table(image: Image) -> tuple[str, dict[int, Partition]]:
    """The table's kind and an MBR's partitions, by sfdisk.

    It reads a copy of the disk's start, in memory and as long as the disk. So it never touches the image or
    device itself, and counts in sectors of 512 bytes, as QEMU's disks do.
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
        return GPT, {}  # one that sfdisk finds damaged
    return MBR, partitions


def _start(image: Image) -> bytes:
    """The first bytes of the disk inside an image."""
    if image.format is ImageFormat.RAW:
        return image.head
    with tempfile.TemporaryDirectory(prefix="vhostcomm-disk-", dir=temporary_folder()) as folder:
        copy = Path(folder, "start")
        # Absolute, since qemu-img takes `a:b` for a protocol; -U, since a running guest has the image locked.
        checked(
            "qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", f"bs={HEAD_SIZE}", "count=1",
            f"if={Path(image.path).absolute()}", f"of={copy}",
            path=image.path,
        )  # fmt: skip
        return copy.read_bytes()[: image.size]
