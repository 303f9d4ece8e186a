"""The installation: everything into a folder beside the one that is wanted, which is renamed at the end."""

from __future__ import annotations

import copy
import fcntl
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from attrs import frozen

from vhostcomm.config.machine import CONFIGURATION
from vhostcomm.errors import InstallError
from vhostcomm.install import filesystem
from vhostcomm.install.configuration import configuration, derived_mac, guest_name
from vhostcomm.install.pat import PACKAGES, PACKAGES_TARGET, SYSTEM, Pat, open_pat
from vhostcomm.install.stream import unpack
from vhostcomm.install.tree import Tree
from vhostcomm.qemu.disk.creation import partition
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.layouts import CONTAINER, SECTOR_SIZE, Layout
from vhostcomm.qemu.disk.tools import checked, find
from vhostcomm.system_errors import explain

SYSTEM_SIZE: Final = 10_738_466_816
"""Bytes of the system disk, as the container makes it: its two partitions and no more."""

DATA_SIZE_MIN: Final = 1 << 20

_OVERHEAD: Final = 512 << 20
"""Bytes for the file system's journal and tables, and for margin."""

_MBR_SIGNATURE: Final = b"\x55\xaa"
_PROBE_SIZE: Final = 16 << 20


@frozen
class Options:
    """How to install.

    Args:
        data_size: of the data disk, in bytes.
        image_format: of all disks.
        layout: of the system disk's partitions.
        disk_options: for the configuration; checked by who gives them. Empty for the defaults.
        mac: the guest's MAC address; empty for one that follows from its name.
    """

    data_size: int = 16 << 30
    image_format: ImageFormat = ImageFormat.RAW
    layout: Layout = CONTAINER
    disk_options: str = ""
    mac: str = ""


@frozen
class Progress:
    """How far a step is: bytes done, of all there are; 0 of 0 for a step that can't be measured."""

    step: str
    done: int = 0
    total: int = 0


@frozen
class Installed:
    """What is in the folder.

    Args:
        folder: its path.
        files: the names in it.
        is_new: it was installed now; otherwise it was there, and nothing was changed.
        mac: of the guest; empty if it was there.
    """

    folder: Path
    files: tuple[str, ...]
    is_new: bool
    mac: str = ""


Tell = Callable[[Progress], None]


def install(pat: str, folder: str, options: Options, tell: Tell) -> Installed:
    """Install a `.pat` into a folder, or say what is there.

    It waits for child processes. However it ends, the folder is whole or not there; what a killed run left in the
    temporary folder beside it, the next one removes.

    Args:
        pat: the file.
        folder: for the guest; it may not exist yet, or is empty.
        options: how.
        tell: called with the progress.

    Raises:
        InstallError: the `.pat` or the folder won't do.
        DiskError: a tool is missing, or fails.
    """
    target = Path(folder).resolve()
    if there := _there(target):
        return there
    if target.parent == target or not target.parent.is_dir():
        raise InstallError(f"{folder}: there is no folder {target.parent}; make it first: mkdir -p {target.parent}")
    try:
        with open_pat(pat) as opened:
            _check(opened, target, options)
            with _workspace(target) as work:
                mac = _make(opened, work, target, options, tell)
                tell(Progress("finish"))
                _write_out(work)
                work.rename(target)
    except OSError as error:
        raise InstallError(f"{error.filename or target}: {explain(error)}; nothing was installed") from None
    return Installed(target, _names(target), is_new=True, mac=mac)


def _there(target: Path) -> Installed | None:
    try:
        names = _names(target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"{target}: {explain(error)}; choose another folder") from None
    if CONFIGURATION in names:
        return Installed(target, names, is_new=False)
    if names:
        raise InstallError(f"{target}: has something else in it ({', '.join(names[:3])}); choose a new folder")
    if target.is_mount():
        raise InstallError(f"{target}: a mount point, which can't be replaced; choose a folder in it: {target}/nas")
    return None


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(each.name for each in folder.iterdir()))


def _check(pat: Pat, target: Path, options: Options) -> None:
    tools = (*filesystem.TOOLS, "sfdisk", *(["qemu-img"] if options.image_format is ImageFormat.QCOW2 else []))
    for tool in tools:
        find(tool, path=str(target))
    if options.data_size < DATA_SIZE_MIN or options.data_size % SECTOR_SIZE:
        raise InstallError(f"a data disk of {options.data_size} bytes: it has {DATA_SIZE_MIN >> 20}M or more")
    room = options.layout.first.size * SECTOR_SIZE
    if pat.system_size + _OVERHEAD > room:
        raise InstallError(
            f"{pat.path}: the system has {_mib(pat.system_size)}, and does not fit into a partition of {_mib(room)}; "
            "choose --layout container or 9"
        )
    copies = 3 if options.image_format is ImageFormat.QCOW2 else 2
    needed = copies * (pat.system_size + pat.boot_size) + _OVERHEAD
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise InstallError(
            f"{target.parent}: {_mib(free)} are free, and installing needs {_mib(needed)}; make room there, or choose "
            "another place"
        )


def _mib(size: int) -> str:
    return f"{-(-size >> 20)} MiB"


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A temporary folder beside the target, of this process alone; gone afterwards unless it was renamed."""
    work = target.with_name(f".{target.name}.installing")
    work.mkdir(0o700, exist_ok=True)
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError(f"{target}: another vhostcomm install is making it; wait for that one") from None
        _empty(work)  # what a killed run has left
        try:
            yield work
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    finally:
        os.close(fd)


def _empty(work: Path) -> None:
    for each in work.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _make(pat: Pat, work: Path, target: Path, options: Options, tell: Tell) -> str:
    _check_sparse(work, target)
    suffix = {ImageFormat.RAW: "img", ImageFormat.QCOW2: "qcow2"}[options.image_format]
    boot, system, data = (work / f"{name}.img" for name in ("synoboot", "system", "data"))
    _boot(pat, boot, tell)
    _system(pat, work, system, options.layout, tell)
    data.touch()
    os.truncate(data, options.data_size)
    if options.image_format is ImageFormat.QCOW2:
        for image in (boot, system, data):
            tell(Progress(f"convert {image.stem} to qcow2"))
            words = ("convert", "-f", "raw", "-O", "qcow2", image.name, f"{image.stem}.qcow2")
            checked("qemu-img", *words, path=str(target), folder=str(work), seconds=3600.0)
            image.unlink()
    name = guest_name(target)
    mac = options.mac or derived_mac(name)
    disks = {disk: f"{disk}.{suffix}" for disk in ("synoboot", "system", "data")}
    text = configuration(name, Path(pat.path).name, disks, mac, options.disk_options)
    (work / CONFIGURATION).write_text(text)
    for each in work.iterdir():
        each.chmod(0o600)
    return mac


def _boot(pat: Pat, image: Path, tell: Tell) -> None:
    step = "unpack the boot disk"
    tell(Progress(step, 0, pat.boot_size))
    with image.open("xb") as file:
        for number, piece in enumerate(pat.boot()):
            if number == 0 and piece[510:512] != _MBR_SIGNATURE:
                raise InstallError(f"{pat.boot_name}: what is in it is no boot disk (it has no boot sector)")
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
            tell(Progress(step, file.tell(), pat.boot_size))
        file.truncate()
        if file.tell() != pat.boot_size or not pat.boot_size:
            raise InstallError(f"{pat.boot_name}: {file.tell()} bytes in it instead of {pat.boot_size}")


def _system(pat: Pat, work: Path, image: Path, layout: Layout, tell: Tell) -> None:
    step = "unpack the system"
    done, total = 0, pat.system_size
    tell(Progress(step, 0, total))

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        tell(Progress(step, done, total))

    files = work / "tree"
    files.mkdir(0o700)
    tree = Tree(files, filesystem.inodes(layout.first), wrote)
    for name, below in SYSTEM.items():

        def take(member: tarfile.TarInfo, data: IO[bytes] | None, name: str = name, below: str = below) -> None:
            tree.add(name, member, data, below=below)

        unpack(pat.open(name), name, take)
    for path in pat.packages:
        member = copy.copy(pat.members[path])
        member.name = PACKAGES_TARGET + path.removeprefix(PACKAGES)
        tree.add(Path(pat.path).name, member, pat.open(path))
    tree.finish()
    size = SYSTEM_SIZE if layout is CONTAINER else layout.third_start * SECTOR_SIZE + (1 << 20)
    partition(image, size, layout, path=image)
    tell(Progress("make the file system"))
    filesystem.make(image, layout.first, files)
    tell(Progress("set owners and modes"))
    filesystem.set_owners(image, layout.first, tree.nodes)
    tell(Progress("check the file system"))
    filesystem.check(image, layout.first)
    shutil.rmtree(files)


def _check_sparse(work: Path, target: Path) -> None:
    probe = work / "probe"
    probe.touch()
    os.truncate(probe, _PROBE_SIZE)
    if not is_sparse(probe):
        raise InstallError(
            f"{target.parent}: its file system has no sparse files, so the disks would take their whole size; choose "
            "another place"
        )
    probe.unlink()


def is_sparse(path: Path) -> bool:
    """Whether a file takes less than half of its size."""
    found = path.stat()
    return found.st_blocks * 512 < found.st_size // 2


def _write_out(work: Path) -> None:
    """Have the disk hold all of it before it gets its name."""
    for each in (*work.iterdir(), work):
        fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
