from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs
import pytest

from tests.qemu.disks import COMPLAINT, GIB, SIZE, partitioned, run, sparse
from vhostcomm.errors import DiskError
from vhostcomm.qemu.disk import image, tools
from vhostcomm.qemu.disk.creation import init
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.inspection import inspect, warning
from vhostcomm.qemu.disk.layouts import LAYOUTS, SECTOR_SIZE, VDSM, Layout, Partition

pytestmark = pytest.mark.needs("sfdisk", "qemu-img")

# -- the table


AS_PRINTED = """
42A92h, 0C02F1h, 42A92h, 3Fh, 42A92h, 83h, 42AD1h, 0C02F1h, 82h, -1, -1, 83h, 0, 2
4BFD77h, 0FEF01h, 3EC10h, 3Fh, 4BFD77h, 83h, 4BFDB6h, 0FEF01h, 82h, -1, -1, 83h, 0, 3
816A2h, 0C02F1h, 3E82h, 3Fh, 816A2h, 83h, 816E1h, 0C02F1h, 82h, -1, -1, 83h, 0, 5
0B07AEh, 911E5h, 3E82h, 3Fh, 0B07AEh, 83h, 0B07EDh, 911E5h, 82h, -1, -1, 83h, 0, 6
4BFD77h, 3FFAC5h, 3EC10h, 3Fh, 4BFD77h, 83h, 4BFDB6h, 3FFAC5h, 82h, -1, -1, 83h, 0, 7
4BFF00h, 400000h, 40000h, 100h, 4BFF00h, 83h, 4C0000h, 400000h, 82h, -1, -1, 83h, 0, 8
4BFF00h, 400000h, 3F900h, 800h, 4BFF00h, 83h, 4C0700h, 400000h, 82h, -1, -1, 83h, 0, 9
1000000h, 400000h, 40000h, 2000h, 1000000h, 83h, 1002000h, 400000h, 82h, -1, -1, 83h, 0, 100000001h
1805A3h, 0C02F1h, 42AD1h, 3Fh, 1805A3h, 0FDh, 1805E2h, 0C02F1h, 0FDh, -1, -1, 0FDh, 0, 100000002h
4BFD77h, 0FEF01h, 3EC10h, 3Fh, 4BFD77h, 0FDh, 4BFDB6h, 0FEF01h, 0FDh, -1, -1, 0FDh, 0
"""


def test_layouts_match_the_printed_table() -> None:
    rows = [[int(word.rstrip("h"), 16) for word in line.split(", ")] for line in AS_PRINTED.split("\n") if line]
    numbers = [1, *(row[13] for row in rows[:-1])]  # the first number is not printed
    for layout, row, number in zip(LAYOUTS, rows, numbers, strict=True):
        size1, size2, gap, *partitions, end = row[:13]
        assert (size1, size2, gap) == (layout.first.size, layout.second.size, layout.gap)
        first, second = layout.first, layout.second
        assert partitions[:3] == [first.start, first.size, first.type]
        assert partitions[3:6] == [second.start, second.size, second.type]
        assert partitions[6:] == [-1, -1, layout.third_type]
        assert (layout.raid << 32) + layout.version == number
        assert (first.end, end) == (second.start, 0)


def test_vdsm_is_version_8_and_its_third_partition_begins_at_4_5_gib() -> None:
    assert VDSM is LAYOUTS[6]
    assert VDSM.version == 8
    assert VDSM.third_start * SECTOR_SIZE == 4.5 * GIB


# -- recognising


def third(layout: Layout) -> Partition:
    return Partition(layout.third_start, 2048, layout.third_type)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_each_layout_is_recognised(disk: Path, layout: Layout) -> None:
    found = inspect(partitioned(disk, layout.first, layout.second, third(layout)))
    assert found.layout is layout
    assert found.guest_prints == (f"Partition Version={layout.version}",)
    assert found.is_vdsm == (layout.version == 8)
    assert bool(found.why) != found.is_vdsm
    assert found.partitions[3] == third(layout)
    assert warning(disk) == ""


def test_another_layout_is_named_with_its_differences(disk: Path) -> None:
    found = inspect(partitioned(disk, LAYOUTS[5].first, LAYOUTS[5].second))
    assert found.why == (
        "it has version 7 of the known layouts; VDSM has version 8",
        "partition 1 starts at sector 256, not 2048",
        "partition 2 starts at sector 4980736, not 4982528",
    )


NEAR_MISSES = {
    "1 starts later": ([attrs.evolve(VDSM.first, start=2056, size=4_980_472), VDSM.second], "sector 2056, not 2048"),
    "1 a sector short": ([attrs.evolve(VDSM.first, size=4_980_479), VDSM.second], "1 has 4980479 sectors, not 4980480"),
    "1 in a RAID": ([attrs.evolve(VDSM.first, type=0xFD), VDSM.second], "partition 1 is of type fd, not 83"),
    "2 starts later": ([VDSM.first, attrs.evolve(VDSM.second, start=4_982_529)], "sector 4982529, not 4982528"),
    "2 of 3 GiB": ([VDSM.first, attrs.evolve(VDSM.second, size=6_291_456)], "2 has 6291456 sectors, not 4194304"),
    "2 no swap": ([VDSM.first, attrs.evolve(VDSM.second, type=0x83)], "partition 2 is of type 83, not 82"),
    "2 missing": ([VDSM.first], "partition 2 is missing"),
    "in each other's place": ([VDSM.second, VDSM.first], "partition 1 starts at sector 4982528, not 2048"),
}


@pytest.mark.parametrize(("partitions", "reason"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_layout_that_differs_slightly_is_version_0(disk: Path, partitions: list[Partition], reason: str) -> None:
    found = inspect(partitioned(disk, *partitions))
    assert found.layout is None
    assert found.guest_prints == COMPLAINT
    assert any(reason in sentence for sentence in found.why)
    assert warning(disk).startswith(f"{disk}: not partitioned as a system disk: {', '.join(found.why)}; the guest")
    assert warning(disk).endswith(f"prints {COMPLAINT[1]!r}; details: vhostcomm disk inspect {disk}")


@pytest.mark.parametrize("rest", [[], [Partition(VDSM.third_start, 4096, 0xFD)], [Partition(9_500_000, 2048, 0x5)]])
def test_the_third_partition_is_not_compared(disk: Path, rest: list[Partition]) -> None:
    assert inspect(partitioned(disk, VDSM.first, VDSM.second, *rest)).is_vdsm


def test_partitions_beyond_the_end_of_the_disk_are_ignored(disk: Path) -> None:
    partitioned(disk, VDSM.first, VDSM.second)
    os.truncate(disk, (VDSM.second.end - 1) * SECTOR_SIZE)
    found = inspect(disk)
    assert found.layout is None
    assert found.why == ("partition 2 ends at sector 9176832, the disk at 9176831",)


def test_an_mbr_without_partitions(disk: Path) -> None:
    found = inspect(partitioned(disk))
    assert (found.table, found.why) == ("dos", ("partition 1 is missing", "partition 2 is missing"))


@pytest.mark.parametrize("keep", [SIZE, 100 * 1024 * 1024], ids=["whole", "cut off"])
def test_a_gpt(disk: Path, keep: int) -> None:
    run("sfdisk", "--quiet", sparse(disk), stdin="label: gpt\nstart=2048, size=4980480")
    os.truncate(disk, keep)
    found = inspect(disk)
    assert (found.table, found.layout, found.partitions) == ("gpt", None, {})
    assert found.why == ("its partition table is a GPT; guests know only MBR layouts",)
    assert COMPLAINT[1] in warning(disk)


def test_partition_table_of_another_kind_is_named(disk: Path) -> None:
    found = inspect(partitioned(disk, label="sun", size=GIB))
    assert found.why == ("its partition table is of type sun, not an MBR",)


@pytest.mark.parametrize("size", [SECTOR_SIZE, 1 << 20, SIZE])
def test_no_table(disk: Path, size: int) -> None:
    found = inspect(sparse(disk, size))
    assert (found.table, found.layout, found.why) == ("", None, ("it has no partition table",))
    assert found.size == size


def test_inspecting_changes_nothing_and_finds_sfdisk_without_sbin_in_the_path(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitioned(disk, VDSM.first, VDSM.second)
    disk.chmod(0o400)
    before = disk.stat()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert inspect(disk).is_vdsm
    assert (disk.stat().st_mtime_ns, disk.stat().st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert list(disk.parent.iterdir()) == [disk]


def test_a_block_device_is_read_like_a_file(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partitioned(disk, VDSM.first, VDSM.second)
    genuine = os.stat

    def as_device(path: str) -> os.stat_result:
        found = list(genuine(path))
        return os.stat_result([stat.S_IFBLK | 0o660, *found[1:]])

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", as_device)
        probed = image.probe(disk)
    assert (probed.format, probed.size) == (ImageFormat.RAW, SIZE)


# -- the tools


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("tool", "package"), [("sfdisk", "fdisk"), ("qemu-img", "qemu-utils")])
def test_a_missing_tool_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, package: str
) -> None:
    path = tmp_path / "sys.qcow2"
    init(path, SIZE, ImageFormat.QCOW2)
    if tool == "sfdisk":
        path = sparse(tmp_path / "sys.img")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SBIN", "")
    with pytest.raises(DiskError, match=rf"needs {tool}, which is not installed; install the package {package} "):
        inspect(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("#!/bin/sh\necho one >&2; echo two >&2; exit 3\n", "sfdisk failed with status 3: one; two"),
        ("#!/bin/sh\nexit 1\n", "sfdisk failed with status 1: no error output"),
        ("#!/bin/sh\nkill -STOP $$\n", "took more than 0 seconds and was killed"),
        ("#!/nonexistent\n", "sfdisk can't be run: No such file"),
    ],
)
def test_a_tool_that_fails(disk: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str) -> None:
    folder = disk.parent / "bin"
    program(folder, "sfdisk", text)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(tools, "_DEADLINE", 0.3)
    with pytest.raises(DiskError, match=what):
        inspect(sparse(disk))
