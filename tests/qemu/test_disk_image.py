from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.qemu.disks import SIZE, partitioned, run, sparse
from tests.serving import TIMEOUT, line_from, started
from vhostcomm.errors import DiskError
from vhostcomm.qemu.disk import image
from vhostcomm.qemu.disk.creation import init
from vhostcomm.qemu.disk.image import ImageFormat, probe
from vhostcomm.qemu.disk.inspection import inspect, warning
from vhostcomm.qemu.disk.layouts import VDSM

pytestmark = pytest.mark.needs("sfdisk", "qemu-img")

# -- formats


def test_the_format_of_genuine_images(tmp_path: Path) -> None:
    assert probe(sparse(tmp_path / "raw.img")).format is ImageFormat.RAW
    for version in ("0.10", "1.1"):
        path = tmp_path / f"{version}.img"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat={version}", path, "1G")
        assert probe(path).format is ImageFormat.QCOW2


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", "qcow"])
def test_other_formats_are_rejected_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", kind, path, "10M")
    with pytest.raises(DiskError, match=rf"^{path}: an image of format {kind}; .*qemu-img convert") as caught:
        inspect(path)
    assert caught.value.path == str(path)


def zipped(content: bytes) -> bytes:
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("disk.img", content)
        return made.getvalue()


def tarred(content: bytes) -> bytes:
    with io.BytesIO() as made:
        with tarfile.open(fileobj=made, mode="w") as archive:
            member = tarfile.TarInfo("disk.img")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return made.getvalue()


def tarred_before_posix(content: bytes) -> bytes:
    """An archive without a magic, which only its checksum identifies."""
    made = bytearray(tarred(content))
    made[257:512] = bytes(255)
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)


@pytest.mark.parametrize(
    ("packed", "pack"),
    [
        ("a gzip file", gzip.compress),
        ("an xz file", lzma.compress),
        ("a bzip2 file", bz2.compress),
        ("a zip archive", zipped),
        ("a tar archive", tarred),
        ("a tar archive", tarred_before_posix),
        ("a cpio archive", lambda content: b"070701" + content),
        ("a cpio archive", lambda content: b"070707" + content),
        ("a zstd file", lambda content: b"\x28\xb5\x2f\xfd" + content),
        ("a 7z archive", lambda content: b"7z\xbc\xaf\x27\x1c" + content),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("size", [1, 1000])
def test_an_archive_is_rejected_with_its_name_and_the_command(
    packed: str, pack: Callable[[bytes], bytes], size: int, tmp_path: Path
) -> None:
    path = tmp_path / "a disk.img"
    path.write_bytes(pack(b"disk" * size))
    with pytest.raises(DiskError, match=f"{packed}, not a disk image; unpack it and give its content: .*'{path}'$"):
        probe(path)


def test_a_boot_sector_shows_that_an_archive_is_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes((b"\x1f\x8b\x08".ljust(510, b"\0") + b"\x55\xaa").ljust(4096, b"\0"))
    assert probe(path).format is ImageFormat.RAW


def test_wrong_checksum_is_not_a_tar_archive(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    made = bytearray(tarred_before_posix(b"disk" * 1000))
    made[0] ^= 1
    path.write_bytes(made)
    assert probe(path).format is ImageFormat.RAW


def test_newer_and_truncated_qcow2_are_rejected(disk: Path) -> None:
    disk.write_bytes(struct.pack(">4sI", b"QFI\xfb", 4).ljust(512, b"\0"))
    with pytest.raises(DiskError, match=r"format qcow2 \(its version 4\)"):
        probe(disk)
    disk.write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(DiskError, match=r"cut off in its header \(8 bytes\)"):
        probe(disk)


def test_raw_disk_in_which_a_guest_wrote_a_qcow2_overlay_is_rejected(disk: Path, tmp_path: Path) -> None:
    secret, written = tmp_path / "secret", tmp_path / "written.qcow2"
    secret.write_bytes(b"secret".ljust(512, b"\0"))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, written, "1G")
    partitioned(disk, VDSM.first, VDSM.second)
    with disk.open("r+b") as file:
        file.write(written.read_bytes())
    with pytest.raises(DiskError, match="reads from another file"):
        probe(disk)
    assert "partition layout not checked" in warning(disk)
    assert probe(written).format is ImageFormat.QCOW2


def test_disk_with_an_external_data_file_is_rejected(disk: Path, tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", disk, "1G")
    with pytest.raises(DiskError, match="reads from another file"):
        probe(disk)
    assert probe(disk.rename(tmp_path / "mine.qcow2")).format is ImageFormat.QCOW2


def test_a_raw_image_may_not_be_named_qcow2(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"named \.qcow2, but it is not a qcow2 image"):
        probe(sparse(tmp_path / "raw.qcow2"))


# -- qcow2


@pytest.mark.parametrize("name", ["sys.qcow2", "a:b.qcow2", "-f raw,x=y.img", "ß 磁盘.qcow2"])
def test_a_qcow2(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, qcow2 = partitioned(tmp_path / "raw", VDSM.first, VDSM.second), tmp_path / name
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    monkeypatch.chdir(tmp_path)
    for path in (qcow2, name):
        found = inspect(path)
        assert (found.format, found.size, found.is_vdsm) == (ImageFormat.QCOW2, SIZE, True)


def test_a_qcow2_overlay_shows_what_the_guest_sees(tmp_path: Path) -> None:
    base, overlay = partitioned(tmp_path / "base.img", VDSM.first, VDSM.second), tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay)
    assert inspect(overlay).is_vdsm


def test_a_qcow2_in_use_can_be_inspected(tmp_path: Path) -> None:
    path = tmp_path / "sys.qcow2"
    init(path, SIZE, ImageFormat.QCOW2)
    command = ["qemu-io", "-f", "qcow2", path]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as user:
        assert user.stdin
        user.stdin.write(b"length\n")
        assert "12 GiB" in line_from(user)
        with pytest.raises(subprocess.CalledProcessError):  # QEMU locks the image
            run("qemu-img", "info", path)
        assert inspect(path).is_vdsm
        user.stdin.close()
        assert user.wait(TIMEOUT) == 0


def test_a_small_qcow2(tmp_path: Path) -> None:
    path = tmp_path / "small.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1024")
    assert inspect(path).why == ("it has no partition table",)
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "0")
    with pytest.raises(DiskError, match="0 bytes; a partition table alone takes 512"):
        inspect(path)


def test_qcow2_with_a_wrong_size_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "lie.qcow2"
    init(path, SIZE, ImageFormat.QCOW2)
    with path.open("r+b") as file:
        file.seek(24)
        file.write(b"\xff" * 8)
    with pytest.raises(DiskError, match=r"lie\.qcow2: qemu-img failed with status 1: .+"):
        inspect(path)


# -- what can't be read


def empty(path: Path) -> None:
    path.touch()


BAD = {
    "nonexistent": (
        lambda _: None,
        r"no such file; `vhostcomm install` makes a guest's disks from a \.pat, `vhostcomm disk init`",
    ),
    "empty": (empty, r"empty \(0 bytes\)"),
    "tiny": (lambda path: path.write_bytes(b"\0" * 511), "511 bytes; a partition table alone takes 512"),
    "directory": (Path.mkdir, "a directory, not an image"),
    "FIFO": (os.mkfifo, "a FIFO, not an image"),
    "character device": (lambda path: path.symlink_to("/dev/null"), "a character device, not an image"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "link to itself": (lambda path: path.symlink_to(path), "can't be read: Too many levels"),
}


@pytest.mark.parametrize(("make", "what"), BAD.values(), ids=BAD)
def test_files_other_than_images_are_rejected(disk: Path, make: Callable[[Path], object], what: str) -> None:
    make(disk)
    with pytest.raises(DiskError, match=what) as caught:
        inspect(disk)
    assert str(caught.value).startswith(f"{disk}: ")
    assert warning(disk) == f"{caught.value} (partition layout not checked)"


def test_an_unreadable_image(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(disk)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image, "open", refuse, raising=False)  # permissions do not stop root
    with pytest.raises(DiskError, match=f"user {os.geteuid()} may not read it"):
        inspect(disk)


def test_full_disk_during_the_copy_is_reported(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    with pytest.raises(DiskError, match="its start can't be copied: Too many open files"):
        inspect(sparse(disk))


def test_a_vhost_scsi_target_can_not_be_inspected() -> None:
    with pytest.raises(DiskError, match=r"^naa\.119ec5c1: a vhost-scsi target"):
        inspect("naa.119ec5c1")
    with pytest.raises(DiskError, match="vhost-scsi target"):
        init("naa.119ec5c1", SIZE)
