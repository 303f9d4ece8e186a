"""Adding a disk to an installed guest, and enlarging one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.qemu.disks import GIB, run, sparse
from tests.serving import run_vhostcomm, started
from vhostcomm.config.load import load
from vhostcomm.errors import DiskError, InstallError, UsageError
from vhostcomm.install.adding import add
from vhostcomm.install.configuration import configuration
from vhostcomm.qemu.disk.growing import grow
from vhostcomm.qemu.disk.image import ImageFormat, probe

pytestmark = pytest.mark.needs("qemu-img")


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    folder = tmp_path / "nas"
    folder.mkdir()
    disks = {name: f"{name}.img" for name in ("synoboot", "system", "data")}
    (folder / "vhostcomm.toml").write_text(configuration("nas", "x.pat", disks, "02:11:32:00:00:01"))
    (folder / "vhostcomm.toml").chmod(0o640)
    return folder


def data_of(nas: Path) -> tuple[str, ...]:
    return load(nas / "vhostcomm.toml", environment={"RUNTIME_DIRECTORY": "/run/x"}).guests[0].machine.data


def test_a_disk_is_added_to_the_folder_and_its_file(nas: Path) -> None:
    before = (nas / "vhostcomm.toml").read_text()
    added = run_vhostcomm("disk", "add", nas, "--size", "1T")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout == f"{nas}/data2.img: raw, 1.0 TiB, empty; the guest sees it from its next start\n"
    assert add(nas, GIB, ImageFormat.QCOW2) == ("data2.qcow2", ImageFormat.QCOW2)
    assert data_of(nas) == tuple(str(nas / name) for name in ("data.img", "data2.img", "data2.qcow2"))
    assert (probe(nas / "data2.img").size, probe(nas / "data2.qcow2").size) == (1 << 40, GIB)
    changed = (nas / "vhostcomm.toml").read_text()
    assert changed.replace(json.dumps(["data.img", "data2.img", "data2.qcow2"]), '["data.img"]') == before
    assert (nas / "vhostcomm.toml").stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in nas.iterdir()) == ["data2.img", "data2.qcow2", "vhostcomm.toml"]


def test_an_added_disk_has_the_format_of_the_last(nas: Path) -> None:
    file = nas / "vhostcomm.toml"
    file.write_text(file.read_text().replace('"data.img"', '"data.img", "other.qcow2,serial=D1"'))
    assert add(nas, GIB, None) == ("data2.qcow2", ImageFormat.QCOW2)
    assert probe(nas / "data2.qcow2").format is ImageFormat.QCOW2


def test_a_file_of_the_user_beside_the_settings_stays(nas: Path) -> None:
    (nas / "vhostcomm.toml.new").write_text("# a draft")
    add(nas, GIB, None)
    assert (nas / "vhostcomm.toml.new").read_text() == "# a draft"


def test_disks_that_cannot_be_added(nas: Path) -> None:
    with pytest.raises(InstallError, match="give a directory that `vhostcomm install` made"):
        add(nas.parent, GIB, ImageFormat.RAW)
    file = nas / "vhostcomm.toml"
    text = file.read_text()
    file.write_text(text.replace('["data.img"]', '[\n"data.img"]'))
    with pytest.raises(InstallError, match=r'isn\'t one line.*data = \["data.img", "data2.img"\]'):
        add(nas, GIB, ImageFormat.RAW)
    file.write_text(text.replace('"data.img"', ", ".join(['"x"'] * 16)))
    with pytest.raises(InstallError, match="16 data disks"):
        add(nas, GIB, ImageFormat.RAW)
    file.write_text("[guests.nas]\n")
    with pytest.raises(InstallError, match=r"does not have exactly one guest with machine\.data"):
        add(nas, GIB, ImageFormat.RAW)
    assert [each.name for each in nas.iterdir()] == ["vhostcomm.toml"]


def test_a_disk_grows_and_never_shrinks(tmp_path: Path) -> None:
    image = sparse(tmp_path / "data.img", GIB)
    with image.open("r+b") as file:
        file.write(b"kept")
    grown = run_vhostcomm("disk", "grow", image, "--size", "2G")
    assert (grown.returncode, grown.stdout) == (0, f"{image}: 2.0 GiB, was 1.0 GiB\n")
    for size in (GIB, 2 * GIB, 3 * GIB + 1):
        with pytest.raises(UsageError, match="a disk can only grow"):
            grow(image, size)
    assert image.stat().st_size == 2 * GIB
    with image.open("rb") as file:
        assert file.read(4) == b"kept"
    run("qemu-img", "create", "-f", "qcow2", tmp_path / "data.qcow2", "1G")
    assert grow(tmp_path / "data.qcow2", 2 * GIB) == GIB
    assert probe(tmp_path / "data.qcow2").size == 2 * GIB


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hi\n", "3 bytes, not whole sectors; if it is a disk: truncate -s %512 "),
        (b"x\n" * 512, "looks like text; give a guest's disk"),
        ("é".encode() * (1 << 20), "looks like text"),
        (("x" + "é" * (1 << 20) + 511 * "x").encode(), "looks like text"),
    ],
)
def test_a_file_that_is_no_disk_does_not_grow(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "data.img"
    file.write_bytes(content)
    refused = run_vhostcomm("disk", "grow", file, "--size", "3T")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"vhostcomm: {file}: {why}")
    assert file.read_bytes() == content


@pytest.mark.parametrize("flag", ["--boot", "--system", "--data"])
def test_a_file_that_is_no_disk_does_not_start(tmp_path: Path, flag: str) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text("#" * 512)
    disks = {"--boot": sparse(tmp_path / "boot.img", 1 << 20)} | {flag: file}
    words = [word for disk in disks.items() for word in disk]
    refused = run_vhostcomm("run", *words, "--sock", tmp_path / "nas", "--net", "none")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"vhostcomm: {file}: looks like text; give a guest's disk, such as data.img\n"


def test_a_disk_that_begins_with_text_grows(tmp_path: Path) -> None:
    """The guest may have written anything to its first MiB."""
    file = tmp_path / "data.img"
    file.write_bytes(b"x\n" * (1 << 19))
    os.truncate(file, 2 << 20)
    assert grow(file, GIB) == 2 << 20


@pytest.mark.parametrize(
    ("offset", "content"), [(510, b"\x55\xaa"), (1080, b"\x53\xef"), (65600, b"_BHRfS_M"), (0, b"XFSB")]
)
def test_a_disk_of_partial_sectors_grows_if_its_content_is_known(tmp_path: Path, offset: int, content: bytes) -> None:
    image = sparse(tmp_path / "keep.pat", (1 << 20) + 100)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    assert grow(image, GIB) == (1 << 20) + 100


@pytest.mark.needs("qemu-system-x86_64")
def test_a_disk_in_use_does_not_grow(tmp_path: Path) -> None:
    image = sparse(tmp_path / "data.img", GIB)
    words = ["-machine", "pc", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    words += ["-drive", f"file={image},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d"]
    with started(["qemu-system-x86_64", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        process.stdin.flush()
        assert b"QMP" in process.stdout.readline()
        assert b"return" in process.stdout.readline()  # it answers when it has locked its disks
        with pytest.raises(DiskError, match="a QEMU has it open; shut the guest down first"):
            grow(image, 2 * GIB)
    assert image.stat().st_size == GIB
