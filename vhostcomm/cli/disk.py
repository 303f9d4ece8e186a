"""`vhostcomm disk`: inspect, init, add, grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from vhostcomm.cli.flags import Place, parsed
from vhostcomm.cli.help import group_of_verbs
from vhostcomm.cli.output import print_json, print_line
from vhostcomm.config import values
from vhostcomm.linux.signals import ended_by_signals
from vhostcomm.qemu.disk.creation import init as init_disk
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.inspection import Inspection
from vhostcomm.qemu.disk.inspection import inspect as inspect_disk
from vhostcomm.qemu.disk.layouts import CONTAINER, SECTOR_SIZE, VDSM, Partition

app = group_of_verbs("disk", "Inspect a guest's system disk, and make or grow disks.")


@app.command
def inspect(
    image: Annotated[Place, Parameter(help="A raw or qcow2 image, or a block device.")],
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="Print one JSON object instead.")] = False,
) -> int:
    """Show how a guest reads a system disk's partition table.

    Exit status 0: genuine guests are known to run on the layout (VDSM's version 8, or the container's). 1: they are not, or
    the disk can't be read.
    """
    found = inspect_disk(image)
    if as_json:
        print_json(_as_json(found))
    else:
        print_line("\n".join(_as_text(found)))
    return 0 if found.is_vdsm or found.is_container else 1


@app.command
def init(
    image: Annotated[Place, Parameter(help="The file to make; it must not exist.")],
    *,
    size: Annotated[str, Parameter(metavar="SIZE", help="The size of the disk, such as 10G (units K M G T, of 1024).")],
    image_format: Annotated[
        ImageFormat, Parameter(name="--format", help="raw (a sparse file) or qcow2.")
    ] = ImageFormat.RAW,
) -> None:
    """Make an empty system disk with VDSM's partition layout and no file systems."""
    in_bytes = parsed(values.size, "--size", size, "10G")
    with ended_by_signals():
        init_disk(image, in_bytes, image_format)
    print_line(f"{image}: {image_format.value}, {_readable(in_bytes)}, VDSM's layout ({VDSM}), no file systems")


@app.command
def add(
    folder: Annotated[
        Place, Parameter(name=["--directory", "--folder"], help="A directory that vhostcomm install made.")
    ],
    *,
    size: Annotated[str, Parameter(metavar="SIZE", help="The size of the disk, such as 1T.")],
    image_format: Annotated[
        ImageFormat | None,
        Parameter(name="--format", help="raw (a sparse file) or qcow2; by default, as the guest's last data disk."),
    ] = None,
) -> None:
    """Add an empty data disk to a guest's directory and its vhostcomm.toml; the guest sees it from its next start."""
    from vhostcomm.install.adding import add as add_disk

    in_bytes = parsed(values.size, "--size", size, "10G")
    with ended_by_signals():
        name, made = add_disk(Path(folder), in_bytes, image_format)
    print_line(
        f"{Path(folder) / name}: {made.value}, {_readable(in_bytes)}, empty; the guest sees it from its next start"
    )


@app.command
def grow(
    image: Annotated[Place, Parameter(help="A raw or qcow2 image of a guest that doesn't run.")],
    *,
    size: Annotated[str, Parameter(metavar="SIZE", help="The new size of the disk, such as 2T; larger than now.")],
) -> None:
    """Make a disk larger, never smaller. The guest has to enlarge its partitions and file systems itself."""
    from vhostcomm.qemu.disk.growing import grow as grow_disk

    in_bytes = parsed(values.size, "--size", size, "10G")
    with ended_by_signals():
        before = grow_disk(image, in_bytes)
    print_line(f"{image}: {_readable(in_bytes)}, was {_readable(before)}")


def _readable(size: int) -> str:
    if size >= 1 << 40:
        return f"{size / (1 << 40):.1f} TiB"
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"


_EXPECTED: Final = {1: VDSM.first, 2: VDSM.second}
_HEADINGS: Final = ("start", "sectors", "type")
_CELLS: Final = "{:>9} {:>10} {:>4}"
_NOTHING: Final = ("-", "-", "-")
_TABLES: Final = {"": "no partition table", "dos": "partition table: MBR"}


def _as_text(found: Inspection) -> Iterator[str]:
    table = _TABLES.get(found.table, f"partition table: {found.table.upper()}")
    yield (
        f"{found.path}: {found.format.value}, {found.size // SECTOR_SIZE} sectors of {SECTOR_SIZE} bytes "
        f"({_readable(found.size)}), {table}"
    )
    yield ""
    yield f"{'':9}  {f'expected ({VDSM})':<25}  found"
    yield f"{'partition':9}  {_CELLS.format(*_HEADINGS)}  {_CELLS.format(*_HEADINGS)}"
    expected = {number: _cells(partition) for number, partition in _EXPECTED.items()}
    expected[3] = (str(VDSM.third_start), "the rest", f"{VDSM.third_type:02x}")
    for number in sorted({*expected, *found.partitions}):
        left, right = expected.get(number, _NOTHING), _cells(found.partitions.get(number))
        mark = _mark(left, right) if number in _EXPECTED else ""
        yield f"{number:<9}  {_CELLS.format(*left)}  {_CELLS.format(*right)}{mark}"
    third = found.partitions.get(3)
    if found.is_vdsm and (third is None or (third.start, third.type) != (VDSM.third_start, VDSM.third_type)):
        yield "(it is unknown whether guests compare partition 3)"
    yield ""
    yield "The guest prints:"
    yield from (f"    {line}" for line in found.guest_prints)
    if found.is_container:
        yield f"This is {CONTAINER}: genuine guests run on it, and version 0 is harmless."
    elif found.why:
        yield "It isn't VDSM's layout:"
        yield from (f"    {reason}" for reason in found.why)
        yield "To make a disk with that layout: vhostcomm disk init IMAGE --size 10G"


def _cells(partition: Partition | None) -> tuple[str, str, str]:
    if partition is None:
        return _NOTHING
    return str(partition.start), str(partition.size), f"{partition.type:02x}"


def _mark(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    if found == _NOTHING:
        return "  ← missing"
    names = [name for name, left, right in zip(_HEADINGS, expected, found, strict=True) if left != right]
    return f"  ← {', '.join(names)}" if names else ""


def _as_json(found: Inspection) -> dict[str, Any]:
    return {
        "path": found.path,
        "format": found.format.value,
        "size": found.size,
        "table": found.table or None,
        "partition_version": found.layout.version if found.layout else 0,
        "raid": bool(found.layout and found.layout.raid),
        "is_vdsm": found.is_vdsm,
        "is_container": found.is_container,
        "why": list(found.why),
        "guest_prints": list(found.guest_prints),
        "expected": {
            **{str(number): _numbers(each) for number, each in _EXPECTED.items()},
            "3": {"start": VDSM.third_start, "sectors": None, "type": f"{VDSM.third_type:02x}"},
        },
        "found": {str(number): _numbers(each) for number, each in sorted(found.partitions.items())},
    }


def _numbers(partition: Partition) -> dict[str, int | str]:
    return {"start": partition.start, "sectors": partition.size, "type": f"{partition.type:02x}"}
