"""The partition layouts that a guest knows: the table of its `synocheckpartition`.

Source: the public reverse-engineering notes of 2022-04-16 print the program's table (VDSM 7.0-42218) as ten rows of
quadwords, and say that VDSM's layout is version 8. A row has the sizes of partitions 1 and 2 and the gap after them,
then start, size and type of each of three partitions, where the third's start and size are -1, and a 0. Each row's
version is at the end of the row *before* it:

- The first row's version isn't printed. It is 1: DSM's public storage headers give this layout that number, including
  the gap, which they call a mistake (273042 instead of 273105).
- The last two are numbered 0x1_0000_0001 and 0x1_0000_0002. In those headers, a row begins with two 32-bit fields: the
  version and a RAID flag. So these are versions 1 and 2 for disks in a RAID. Inferred, but their sizes agree.
- There is no version 4: the headers say that it was never a formal one.

It is unknown how `synocheckpartition` compares. This module requires the row's start, size and type of partitions 1 and
2. It ignores the third: the disk that the notes create has none, and a public boot log (github.com/vdsm/virtual-dsm,
issue 872) prints `Partition Version=8` for a disk with two partitions. The start of a third is inferred: after the gap,
for version 8 at exactly 4.5 GiB. The headers add the same sizes to get the space that a system uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

SECTOR_SIZE: Final = 512
"""Bytes. All starts, sizes and gaps count sectors."""


@frozen
class Partition:
    """A primary partition in an MBR: `start` and `size` in sectors, `type` as in the table."""

    start: int
    size: int
    type: int

    @property
    def end(self) -> int:
        """The first sector after it."""
        return self.start + self.size


@frozen
class Layout:
    """One row of the table.

    Args:
        version: the guest's number for it.
        first: partition 1, the system.
        second: partition 2, swap.
        gap: free sectors after the second.
        third_type: the type of partition 3, which has the rest of the disk.
        raid: whether the disk belongs to a RAID.
    """

    version: int
    first: Partition
    second: Partition
    gap: int
    third_type: int
    raid: bool = False

    @property
    def third_start(self) -> int:
        """The sector where partition 3 begins (inferred)."""
        return self.second.end + self.gap

    def __str__(self) -> str:
        if self is CONTAINER:
            return "the layout of the container vdsm/virtual-dsm"
        return f"version {self.version}{' (RAID)' if self.raid else ''}"

    def differences(self, found: Mapping[int, Partition]) -> Iterator[str]:
        """Yield how a table differs from this layout, one sentence each."""
        for number, expected in ((1, self.first), (2, self.second)):
            if (partition := found.get(number)) is None:
                yield f"partition {number} is missing"
                continue
            if partition.start != expected.start:
                yield f"partition {number} starts at sector {partition.start}, not {expected.start}"
            if partition.size != expected.size:
                yield f"partition {number} has {partition.size} sectors, not {expected.size}"
            if partition.type != expected.type:
                yield f"partition {number} is of type {partition.type:02x}, not {expected.type:02x}"


LINUX: Final = 0x83
SWAP: Final = 0x82
RAID: Final = 0xFD

LAYOUTS: Final = (
    Layout(1, Partition(63, 273_042, LINUX), Partition(273_105, 787_185, SWAP), 273_042, LINUX),
    Layout(2, Partition(63, 4_980_087, LINUX), Partition(4_980_150, 1_044_225, SWAP), 257_040, LINUX),
    Layout(3, Partition(63, 530_082, LINUX), Partition(530_145, 787_185, SWAP), 16_002, LINUX),
    Layout(5, Partition(63, 722_862, LINUX), Partition(722_925, 594_405, SWAP), 16_002, LINUX),
    Layout(6, Partition(63, 4_980_087, LINUX), Partition(4_980_150, 4_192_965, SWAP), 257_040, LINUX),
    Layout(7, Partition(256, 4_980_480, LINUX), Partition(4_980_736, 4_194_304, SWAP), 262_144, LINUX),
    Layout(8, Partition(2048, 4_980_480, LINUX), Partition(4_982_528, 4_194_304, SWAP), 260_352, LINUX),
    Layout(9, Partition(8192, 16_777_216, LINUX), Partition(16_785_408, 4_194_304, SWAP), 262_144, LINUX),
    Layout(1, Partition(63, 1_574_307, RAID), Partition(1_574_370, 787_185, RAID), 273_105, RAID, raid=True),
    Layout(2, Partition(63, 4_980_087, RAID), Partition(4_980_150, 1_044_225, RAID), 257_040, RAID, raid=True),
)

VDSM: Final = next(layout for layout in LAYOUTS if layout.version == 8)
"""Virtual DSM's layout, as of 7.0. (A later VDSM's installer script, also public, makes version 9 on a new disk.)"""


CONTAINER: Final = Layout(0, Partition(2048, 16_777_216, LINUX), Partition(16_779_264, 4_194_304, SWAP), 0, LINUX)
"""The layout of the container vdsm/virtual-dsm: not in the guest's table, but used by genuine guests. No third."""
