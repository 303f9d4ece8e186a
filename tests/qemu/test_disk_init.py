from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.qemu.disks import GIB, SIZE
from vhostcomm.errors import DiskError, UsageError
from vhostcomm.qemu.disk import creation
from vhostcomm.qemu.disk.creation import MAX_SIZE, MIN_SIZE, init
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.inspection import inspect
from vhostcomm.qemu.disk.layouts import SECTOR_SIZE, VDSM, Partition
from vhostcomm.qemu.disk.tools import checked

pytestmark = pytest.mark.needs("sfdisk", "qemu-img")


@pytest.mark.parametrize("size", [MIN_SIZE, 10 * GIB, MAX_SIZE])
@pytest.mark.parametrize("kind", ImageFormat)
def test_a_new_disk_has_the_layout_of_vdsm(tmp_path: Path, kind: ImageFormat, size: int) -> None:
    path = tmp_path / f"sys.{kind.value}"
    init(path, size, kind)
    found = inspect(path)
    assert (found.format, found.size, found.is_vdsm, found.why) == (kind, size, True, ())
    # The last sector of 2 TiB stays unused: sfdisk 2.41 allows no partition there.
    end = min(size // SECTOR_SIZE, 2**32 - 1)
    assert found.partitions == {
        1: VDSM.first,
        2: VDSM.second,
        3: Partition(VDSM.third_start, end - VDSM.third_start, VDSM.third_type),
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_blocks * 512 < 2 << 20  # sparse
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, -1, MIN_SIZE - SECTOR_SIZE, MIN_SIZE + 1, MAX_SIZE + SECTOR_SIZE])
def test_invalid_sizes_are_rejected(disk: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"a size of {size} bytes; VDSM's layout needs 4609M to 2T"):
        init(disk, size)
    assert not disk.exists()


def test_existing_file_is_not_replaced(disk: Path, tmp_path: Path) -> None:
    disk.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for path in (disk, link, tmp_path):
        with pytest.raises(DiskError, match="already exists and was left unchanged"):
            init(path, SIZE)
    assert disk.read_text() == "precious"
    assert set(tmp_path.iterdir()) == {disk, link}


def test_file_created_meanwhile_is_not_replaced(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*words: str, **more: Any) -> object:
        disk.write_text("precious")
        return checked(*words, **more)

    monkeypatch.setattr(creation, "checked", slow)
    with pytest.raises(DiskError, match="already exists"):
        init(disk, SIZE)
    assert disk.read_text() == "precious"
    assert list(disk.parent.iterdir()) == [disk]


def test_a_raw_image_is_not_made_with_a_name_of_qcow2(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose --format qcow2, or another name"):
        init(tmp_path / "sys.qcow2", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=f"there is no directory {tmp_path}/a; make it first"):
        init(tmp_path / "a/sys.img", SIZE)


@pytest.mark.parametrize("error", [DiskError("x", "sfdisk failed"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_failed_init_leaves_no_file(disk: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        assert list(disk.parent.iterdir()) != []
        raise error

    monkeypatch.setattr(creation, "checked", fail)
    with pytest.raises((DiskError, KeyboardInterrupt)) as caught:
        init(disk, SIZE)
    assert list(disk.parent.iterdir()) == []
    if isinstance(error, OSError):
        why = "No space left; make room there, or choose another place"
        assert str(caught.value) == f"{disk}: can't be made in {disk.parent}: {why}"
