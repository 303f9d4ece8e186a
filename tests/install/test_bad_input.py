"""Invalid input: each causes one clear error and leaves no file."""

from __future__ import annotations

import errno
import io
import lzma
import os
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.install import pats
from tests.install.pats import BOOT, BOOT_NAME, NAME, Member, file, other, parts, xz, zipped
from tests.serving import ENVIRONMENT, VHOSTCOMM, run_vhostcomm
from vhostcomm.errors import DiskError, InstallError
from vhostcomm.install.installation import Options, install
from vhostcomm.install.pat import Pat
from vhostcomm.install.stream import damage_reported, unpack
from vhostcomm.install.tree import Tree
from vhostcomm.qemu.disk import tools

pytestmark = pytest.mark.needs("mke2fs", "debugfs", "e2fsck", "sfdisk")

ZEROS: Final = 128 << 20
"""Bytes: more than the limit of any unpacked file."""

MOUNTING: Final = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT: Final = 'mount -t tmpfs -o size={size} none "$0" || exit 99; "$@"; status=$?; ls -A "$0"; exit $status'
"""A script that mounts a small file system on a folder, runs a command, and prints the files left there."""

Make = Callable[[Path], object]


def rejected(tmp_path: Path, *, pat: str = NAME, folder: str = "nas", options: Options = Options()) -> str:  # noqa: B008
    """Install the file; return the error."""
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises((InstallError, DiskError)) as found:
        install(str(tmp_path / pat), str(tmp_path / folder), options, lambda _: None)
    assert sorted(each.name for each in tmp_path.iterdir()) == before
    return str(found.value)


def hda(*members: Member) -> Make:
    return lambda tmp_path: pats.pat(tmp_path, hda=xz(members))


def beside(*members: Member) -> Make:
    """A `.pat` with additional members."""
    return lambda tmp_path: pats.write(tmp_path / NAME, parts(), members)


def raw(data: bytes) -> Make:
    return lambda tmp_path: (tmp_path / NAME).write_bytes(data)


def cut(tmp_path: Path) -> None:
    whole = pats.pat(tmp_path)
    os.truncate(whole, whole.stat().st_size // 3)


def cut_behind_the_last(tmp_path: Path) -> None:
    """Only the mark of the archive's end is missing."""
    whole = pats.pat(tmp_path)
    with tarfile.open(whole) as archive:
        last = archive.getmembers()[-1]
    os.truncate(whole, last.offset_data + 512)


def damaged(name: str) -> Make:
    """The middle of an inner archive is overwritten."""

    def make(tmp_path: Path) -> None:
        made = parts(hda=xz([file(f"./{number}", random.Random(number).randbytes(5000)) for number in range(20)]))
        middle = len(made[name]) // 2
        made[name] = made[name][:middle] + b"damaged " * 8 + made[name][middle + 64 :]
        pats.write(tmp_path / NAME, made)

    return make


def long_headers(tmp_path: Path) -> None:
    """Headers that tarfile would read into memory, here smaller than an attacker's gigabyte."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        made = tarfile.TarInfo("./x")
        made.pax_headers = {"comment": "x" * (8 << 20)}
        archive.addfile(made)
    pats.pat(tmp_path, hda=lzma.compress(written.getvalue(), preset=0))


def nested(count: int) -> bytes:
    """Headers with a long name for the next member, which is another such header."""
    made = tarfile.TarInfo("././@LongLink")
    made.type, made.size = tarfile.GNUTYPE_LONGNAME, 1
    return (made.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * count


def holes(tmp_path: Path) -> None:
    """A file with a hole and no data, in the old format of GNU tar."""
    header = bytearray(other("./x", tarfile.GNUTYPE_SPARSE)[0].tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = b"%011o\0" % ZEROS
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    pats.pat(tmp_path, hda=lzma.compress(bytes(header) + pats.tar(pats.HDA), preset=0))


def package(**headers: str) -> Make:
    """A package in the `.pat` with these extended headers."""

    def make(tmp_path: Path) -> None:
        made = tarfile.TarInfo("packages/x")
        made.pax_headers = headers
        header = made.tobuf(tarfile.PAX_FORMAT)
        (tmp_path / NAME).write_bytes(header + pats.pat(tmp_path).read_bytes())

    return make


def long_integer(tmp_path: Path) -> None:
    """An xz index with one integer of 16 MiB, whose decoding would take hours."""
    size = 16 << 20
    index = b"\0" + b"\xff" * (size - 1)
    footer = bytes(4) + (size // 4 - 1).to_bytes(4, "little") + bytes(2) + b"YZ"
    pats.pat(tmp_path, hda=xz(pats.HDA) + index + footer)


def many(count: int) -> Iterable[Member]:
    return (file(f"./{number}") for number in range(count))


BAD: Final[dict[str, tuple[Make, str]]] = {
    "empty": (raw(b""), r"empty \(0 bytes\); download it again: https://"),
    "encrypted": (
        raw(random.Random(1).randbytes(100_000)),
        r"not a tar archive: not a \.pat, or an encrypted one.*decrypts nothing",
    ),
    "another model": (
        lambda tmp_path: pats.write(tmp_path / NAME, {"hda1.tgz": b"x", "zImage": b"x"}),
        r"no \*\.bin\.zip, no synohdpack_img\.txz, .* hda1\.tgz, zImage.*another model.*DSM_VirtualDSM",
    ),
    "another model with the same parts, by its VERSION": (
        lambda tmp_path: pats.pat(tmp_path, version=b'unique="synology_apollolake_918+"\n'),
        r"another model, 918\+ \(synology_apollolake_918\+\); choose DSM_VirtualDSM",
    ),
    "another model with the same parts, by its boot disk": (
        lambda tmp_path: pats.write(
            tmp_path / NAME,
            {name.replace("kvmx64_virtualdsm", "apollolake_918+"): data for name, data in parts().items()},
        ),
        r"another model, 918\+ \(synology_apollolake_918\+\)",
    ),
    "no system": (lambda tmp_path: pats.pat(tmp_path, hda=None), r"no hda1\.tgz in it"),
    "cut off in a member": (cut, "cut off or damaged"),
    "cut off behind the last member": (cut_behind_the_last, "cut off or damaged"),
    "hda1 damaged": (damaged("hda1.tgz"), "hda1.tgz: cut off or damaged"),
    "hda1 cut off": (
        lambda tmp_path: pats.pat(tmp_path, hda=xz(pats.HDA)[:-40]),
        "hda1.tgz: cut off or damaged",
    ),
    "hda1 is no xz": (lambda tmp_path: pats.pat(tmp_path, hda=pats.tar(pats.HDA)), "hda1.tgz: not compressed with xz"),
    "boot zip damaged": (damaged(BOOT_NAME), "bin.zip: cut off or damaged"),
    "up in the .pat": (beside(file("../../x")), "absolute or leads out"),
    "absolute in the .pat": (beside(file("/etc/x")), "absolute or leads out"),
    "link in the .pat": (beside(other("packages/x", tarfile.SYMTYPE, "/etc")), "a link; a .pat has only"),
    "device in the .pat": (beside(other("x", tarfile.BLKTYPE)), "a device, or a special file; a .pat has only"),
    "up": (hda(file("./a/../../x")), "absolute or leads out"),
    "absolute": (hda(file("/etc/x")), "absolute or leads out"),
    "line end": (hda(file("./a\nsif / uid 5")), "line end"),
    "hard link out": (hda(other("./x", tarfile.LNKTYPE, "../../../etc/passwd")), "absolute or leads out"),
    "hard link to nothing": (
        hda(other("./x", tarfile.LNKTYPE, "etc/passwd")),
        "a hard link to 'etc/passwd', which is no",
    ),
    "symbolic link out": (hda(other("./a/x", tarfile.SYMTYPE, "../../etc/passwd")), "outside the system's tree"),
    "below a link": (
        hda(other("./a", tarfile.SYMTYPE, "/tmp"), file("./a/x")),
        "is below 'a', which is a symbolic link",
    ),
    "below a file": (hda(file("./a"), file("./a/x")), "is below 'a', which is a file"),
    "character device": (
        hda(other("./dev/null", tarfile.CHRTYPE)),
        "a device; a .pat may contain only files, directories and links",
    ),
    "block device": (
        hda(other("./dev/sda", tarfile.BLKTYPE)),
        "a device; a .pat may contain only files, directories and links",
    ),
    "FIFO": (hda(other("./x", tarfile.FIFOTYPE)), "a device; a .pat may contain only files, directories and links"),
    "owner": (hda(file("./x", uid=-1)), "its owner or group is -1"),
    "bomb of xz": (hda(file("./x", bytes(ZEROS))), r"\d+ bytes that unpack to \d+ or more"),
    "bomb of zip": (
        lambda tmp_path: pats.pat(tmp_path, boot=zipped(boot=bytes(ZEROS))),
        r"bin.zip: \d+ bytes that unpack to \d+ or more",
    ),
    "bomb of headers": (long_headers, "a member with more than 1048576 bytes of headers"),
    "bomb of holes": (holes, r"hda1.tgz: \d+ bytes that unpack to \d+ or more"),
    "nested headers": (raw(nested(3000)), "cut off or damaged"),
    "nested headers in hda1": (
        lambda tmp_path: pats.pat(tmp_path, hda=lzma.compress(nested(1100) + pats.tar(pats.HDA), preset=0)),
        "hda1.tgz: (cut off or damaged|a member with more than)",  # tarfile versions that do not recurse continue to the limit
    ),
    "a package without a time": (package(mtime="nan"), "cut off or damaged.*NaN"),
    "a package with a negative size": (package(size="-5"), "cut off or damaged"),
    "integer in an index": (long_integer, "hda1.tgz: cut off or damaged"),
    "bomb of members": (beside(*many(5000)), "more than 4096 members"),
    "two images": (
        lambda tmp_path: pats.pat(tmp_path, boot=zipped(one=BOOT, two=BOOT)),
        "contains 2 files instead of the boot disk alone",
    ),
    "up in the zip": (lambda tmp_path: pats.pat(tmp_path, boot=zipped(**{"../one": BOOT})), "absolute or leads out"),
    "no boot sector": (lambda tmp_path: pats.pat(tmp_path, boot=zipped(one=bytes(4096))), "not a boot disk"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_rejected(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    make(tmp_path)
    assert re.search(words, rejected(tmp_path))


def test_missing_pat_and_missing_place_are_reported(tmp_path: Path) -> None:
    assert "no such file; download DSM_VirtualDSM_….pat from Synology" in rejected(tmp_path)
    pats.pat(tmp_path)
    assert "no directory " in rejected(tmp_path, folder="a/b")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/precious").write_text("x")
    assert "contains other files (precious)" in rejected(tmp_path, folder="used")
    assert (tmp_path / "used/precious").read_text() == "x"
    (tmp_path / "file").write_text("x")
    assert "Not a directory; choose another directory" in rejected(tmp_path, folder="file")
    assert "a data disk of 512 bytes" in rejected(tmp_path, options=Options(data_size=512))
    assert "a directory; give the .pat itself" in rejected(tmp_path, pat="used")
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device; give the .pat itself" in rejected(tmp_path, pat="pipe")


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell would remain in the removed folder, and `vhostcomm run .` would find nothing."""
    pats.pat(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "the current directory, which can't be replaced; choose a directory in it" in rejected(
        tmp_path, folder="here"
    )


def test_an_error_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"")
    done = run_vhostcomm("install", tmp_path / NAME, tmp_path / "nas")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    mistaken = run_vhostcomm("install", tmp_path / NAME, tmp_path / "nas", "--data", "much")
    assert (mistaken.returncode, mistaken.stderr.count("\n")) == (2, 1)
    assert "for example: --data 256G" in mistaken.stderr


def test_lack_of_space_is_found_before_writing(tmp_path: Path) -> None:
    """The sizes in the archive show that before anything is written."""
    pat, small = pats.pat(tmp_path), tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        [*MOUNTING, MOUNT.format(size="300m"), small, *VHOSTCOMM, "install", pat, small / "nas"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"a user may not mount here: {done.stderr}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"small: 300 MiB are free, but the installation needs \d+ MiB; free some space", done.stderr)


def test_pat_of_another_model_is_rejected_by_its_name(tmp_path: Path) -> None:
    members = {name.replace(BOOT_NAME, "boot.bin.zip"): data for name, data in parts().items()}
    pats.write(tmp_path / "DSM_DS920+_72806.pat", members)
    assert "another model, DS920+ (DSM_DS920+_7)" in rejected(tmp_path, pat="DSM_DS920+_72806.pat")


@pytest.mark.parametrize(("size", "where"), [("2m", "small/nas: "), ("8m", "mke2fs")])
def test_a_disk_that_fills_up_meanwhile_is_named(tmp_path: Path, size: str, where: str) -> None:
    """Another program may use the space that was free at the check."""
    big = file("./big", random.Random(1).randbytes(5 << 20))
    pat, small = pats.pat(tmp_path, hda=xz([*pats.HDA, big])), tmp_path / "small"
    small.mkdir()
    roomy = (
        "import shutil; usage = shutil.disk_usage('/')._replace(free=1 << 40); shutil.disk_usage = lambda _: usage; "
    )
    done = subprocess.run(
        [*MOUNTING, MOUNT.format(size=size), small, sys.executable, "-c",
         f"{roomy}from vhostcomm.cli import main; main()", "install", pat, small / "nas"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"a user may not mount here: {done.stderr}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(f"{where}.*No space left on device", done.stderr)
    assert "damaged" not in done.stderr


class FailingFile(io.FileIO):
    """A file on a device with a bad block, in the middle of a member."""

    bad = 1 << 60

    def readinto(self, buffer: object, /) -> int:
        if self.tell() <= self.bad < self.tell() + memoryview(buffer).nbytes:  # type: ignore[arg-type]
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [BOOT_NAME, "hda1.tgz"])
def test_a_failing_device_is_not_reported_as_a_damaged_file(tmp_path: Path, name: str) -> None:
    with FailingFile(pats.pat(tmp_path)) as raw, tarfile.open(fileobj=io.BufferedReader(raw, 512)) as archive:
        members = {each.name: each for each in archive if each.isreg()}
        opened = Pat(NAME, archive, members, BOOT_NAME, len(BOOT), {})
        raw.bad = members[name].offset_data + members[name].size // 2
        pieces: Iterable[object] = (data and data.read() for _, data in unpack(opened.open(name), name))
        if name == BOOT_NAME:
            pieces = opened.boot()
        with pytest.raises(OSError, match="Input/output error"), damage_reported(name):
            list(pieces)


def test_tools_that_are_missing_are_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pats.pat(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SBIN", "")
    assert "needs mke2fs, which is not installed; install the package e2fsprogs" in rejected(tmp_path)


def test_too_many_files_are_rejected(tmp_path: Path) -> None:
    """There are more files than inodes in the partition. Our error precedes that of mke2fs."""
    tree = Tree(tmp_path, 10, lambda _: None)
    for member, data in many(9):
        tree.add("hda1.tgz", member, io.BytesIO(data))
    with pytest.raises(InstallError, match="more than 10 files and directories"):
        tree.add("hda1.tgz", pats.folder("./a")[0], None)
