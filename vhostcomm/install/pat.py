"""Read a `.pat`: a plain tar archive with the boot disk, the system's archives and its packages. It is untrusted."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from attrs import field, frozen

from vhostcomm.errors import InstallError
from vhostcomm.install.stream import RATIO_MAX, SMALL, bomb, cut_off, damage_reported, unpacked_size
from vhostcomm.install.tree import filtered, inside
from vhostcomm.linux.system_errors import explain

PUBLISHED: Final = "https://archive.synology.com/download/Os/DSM"
"""Where Synology publishes `.pat` files. vhostcomm downloads nothing."""

SYSTEM: Final = {"synohdpack_img.txz": "", "indexdb.txz": "usr/syno/synoman/indexdb", "hda1.tgz": ""}
"""The system's archives in the order of the container's installer, each with its target directory."""

PACKAGES: Final = "packages"
PACKAGES_TARGET: Final = ".SynoUpgradePackages"
PACKAGES_LEFT_OUT: Final = "ActiveInsight-*"

_BOOT: Final = "*.bin.zip"
_BLOCK: Final = 512
_MEMBERS_MAX: Final = 4096
"""Maximum members of the `.pat` itself; a genuine one has some dozens."""
_BOOT_MAX: Final = 1 << 30
"""Maximum bytes; the genuine boot disk is smaller than 256 MiB."""
_SHOWN: Final = 8
_VERSION: Final = "VERSION"
_VERSION_MAX: Final = 64 << 10
"""Maximum bytes to read of it; a genuine one has some hundred."""
_MODEL: Final = "virtualdsm"
_MODELS: Final = (
    re.compile(r"synology_[a-z0-9]+_(?P<model>[a-z0-9+-]+)", re.IGNORECASE),  # unique= of VERSION, the boot disk's name
    re.compile(r"DSM_(?P<model>[A-Za-z0-9+-]+)_[0-9]", re.IGNORECASE),  # the name of the file
)
_ENCRYPTED: Final = 0x1
"""A bit in the flags of a zip member."""


@frozen
class Pat:
    """An opened `.pat`. The names, kinds and sizes of its members have been checked.

    Args:
        path: of the file.
        archive: the tar archive.
        members: its regular files by path.
        boot_name: the member with the boot disk.
        boot_size: bytes of the boot disk.
        sizes: unpacked bytes of each archive of the system.
    """

    path: str
    archive: tarfile.TarFile = field(repr=False)
    members: dict[str, tarfile.TarInfo] = field(repr=False)
    boot_name: str
    boot_size: int
    sizes: dict[str, int]

    @property
    def packages(self) -> list[str]:
        """The paths of the members to install as packages."""
        return [
            path
            for path in self.members
            if path.startswith(f"{PACKAGES}/") and not fnmatch.fnmatchcase(path.split("/")[1], PACKAGES_LEFT_OUT)
        ]

    @property
    def system_size(self) -> int:
        """Bytes of all files for the system partition."""
        return sum(self.sizes.values()) + sum(self.members[path].size for path in self.packages)

    def open(self, path: str) -> IO[bytes]:
        """Open a member."""
        found = self.archive.extractfile(self.members[path])
        assert found is not None
        return found

    def boot(self) -> Iterator[bytes]:
        """Yield the boot disk in pieces.

        Raises:
            InstallError: its archive is damaged.
        """
        with (
            _unzipping(self.boot_name),
            zipfile.ZipFile(self.open(self.boot_name)) as archive,
            archive.open(_image(archive, self.boot_name)) as data,
        ):
            while piece := data.read(1 << 20):
                yield piece


@contextmanager
def open_pat(path: str) -> Iterator[Pat]:
    """Open a `.pat` and check it as far as possible without unpacking it.

    Raises:
        InstallError: the file is missing, or is no `.pat` of Virtual DSM that can be installed.
    """
    try:
        if not (stat.S_ISREG(kind := Path(path).stat().st_mode) or stat.S_ISDIR(kind)):
            raise InstallError(f"{path}: a pipe or a device; give the .pat itself, as a file")
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size == 0:
                raise InstallError(f"{path}: empty (0 bytes); download it again: {PUBLISHED}")
            with _tar(file, path) as archive:
                yield _checked(archive, path, size)
    except FileNotFoundError:
        raise InstallError(f"{path}: no such file; download DSM_VirtualDSM_….pat from Synology: {PUBLISHED}") from None
    except IsADirectoryError:
        raise InstallError(f"{path}: a directory; give the .pat itself") from None
    except PermissionError as error:
        raise InstallError(f"{path}: {explain(error)}") from None


def _tar(file: IO[bytes], path: str) -> tarfile.TarFile:
    with damage_reported(path):
        try:
            return tarfile.open(fileobj=file, mode="r:")
        except tarfile.TarError:
            raise InstallError(
                f"{path}: not a tar archive: not a .pat, or an encrypted one, as those of DSM 7.0 to 7.1 are. vhostcomm decrypts "
                f"nothing; newer releases are plain archives: {PUBLISHED}"
            ) from None


def _checked(archive: tarfile.TarFile, path: str, size: int) -> Pat:
    members: dict[str, tarfile.TarInfo] = {}
    end = count = 0
    with damage_reported(path):
        for member in archive:
            count += 1
            if count > _MEMBERS_MAX:
                raise InstallError(f"{path}: more than {_MEMBERS_MAX} members; a .pat has some dozens")
            where = f"{path}: {member.name!a}"
            name = inside(member.name, where)
            if not (member.isreg() or member.isdir()) or member.issparse():
                what = "a link" if member.issym() or member.islnk() else "a device, or a special file"
                raise InstallError(f"{where}: {what}; a .pat has only files and directories, so it is rejected")
            filtered(member, Path("/nonexistent"), where, whole_system=False)
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            if end > size or member.size < 0:
                raise cut_off(path)
            if member.isreg():
                members[name] = member
        archive.fileobj.seek(end)
        if archive.fileobj.read(_BLOCK) != bytes(_BLOCK):
            raise cut_off(path)
    return _virtual_dsm(archive, path, members)


def _virtual_dsm(archive: tarfile.TarFile, path: str, members: dict[str, tarfile.TarInfo]) -> Pat:
    boots = [name for name in members if fnmatch.fnmatchcase(name, _BOOT) and "/" not in name]
    missing = ([_BOOT] if len(boots) != 1 else []) + [name for name in SYSTEM if name not in members]
    if missing:
        there = ", ".join(list(members)[:_SHOWN]) + (", …" if len(members) > _SHOWN else "")
        what = f"{len(boots)} boot disks ({_BOOT})" if len(boots) > 1 else f"no {', no '.join(missing)}"
        raise InstallError(
            f"{path}: {what} in it, but {there or 'nothing'}: not a .pat, or one of another model; "
            f"choose DSM_VirtualDSM_….pat: {PUBLISHED}"
        )
    pat = Pat(path, archive, members, boots[0], 0, {})
    _check_model(pat)
    sizes = {name: unpacked_size(pat.open(name), name) for name in SYSTEM}
    return Pat(path, archive, members, boots[0], _boot_size(pat), sizes)


def _check_model(pat: Pat) -> None:
    """Check the name of the model, in the contents or else in the file's name."""
    version = pat.open(_VERSION).read(_VERSION_MAX).decode(errors="replace") if _VERSION in pat.members else ""
    for text in (version, pat.boot_name, Path(pat.path).name):
        for pattern in _MODELS:
            if not (found := pattern.search(text)):
                continue
            if (model := found["model"]).lower() == _MODEL:
                return
            raise InstallError(
                f"{pat.path}: a .pat of another model, {model} ({found[0]}); choose DSM_VirtualDSM_….pat: {PUBLISHED}"
            )


def _boot_size(pat: Pat) -> int:
    packed = pat.members[pat.boot_name].size
    with _unzipping(pat.boot_name), zipfile.ZipFile(pat.open(pat.boot_name)) as archive:
        for each in archive.infolist():
            inside(each.filename, f"{pat.boot_name}: {each.filename!a}")
        image = _image(archive, pat.boot_name)
    if image.flag_bits & _ENCRYPTED:
        raise InstallError(f"{pat.boot_name}: encrypted; vhostcomm decrypts nothing")
    if image.file_size > min(_BOOT_MAX, max(SMALL, packed * RATIO_MAX)):
        raise bomb(pat.boot_name, image.file_size, packed)
    return image.file_size


def _image(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    images = [each for each in archive.infolist() if not each.is_dir()]
    if len(images) != 1:
        raise InstallError(f"{name}: contains {len(images)} files instead of the boot disk alone, so it is rejected")
    return images[0]


@contextmanager
def _unzipping(name: str) -> Iterator[None]:
    """Report what zipfile raises for a damaged archive of that name. Other errors of the system are the host's own."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        # zipfile seeks to impossible places in a damaged archive: EINVAL, or an OSError without a number.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        raise InstallError(f"{cut_off(name)} ({error})") from None
