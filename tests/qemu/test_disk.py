from __future__ import annotations

from vhostcomm.qemu.disk import LAYOUTS, SECTOR_SIZE, VDSM

GIB = 1 << 30

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


def test_the_table_is_the_printed_one() -> None:
    rows = [[int(word.rstrip("h"), 16) for word in line.split(", ")] for line in AS_PRINTED.split("\n") if line]
    numbers = [1, *(row[13] for row in rows[:-1])]  # the first isn't printed
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
