"""The installation: everything goes into a temporary directory beside the target, which is renamed at the end."""

from __future__ import annotations

import copy
import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config.files import SUFFIX
from vhostcomm.config.machine import CONFIGURATION
from vhostcomm.errors import InstallError
from vhostcomm.install import filesystem
from vhostcomm.install.configuration import configuration, derived_mac, guest_name
from vhostcomm.install.pat import PACKAGES, PACKAGES_TARGET, SYSTEM, Pat, open_pat
from vhostcomm.install.progress import Progress, ReportProgress, growth_reported, occupied
from vhostcomm.install.stream import damage_reported, unpack
from vhostcomm.install.tree import Tree
from vhostcomm.linux.system_errors import explain
from vhostcomm.qemu.disk.creation import partition
from vhostcomm.qemu.disk.image import MBR_SIGNATURE, SIGNATURE_OFFSET, ImageFormat
from vhostcomm.qemu.disk.layouts import CONTAINER, SECTOR_SIZE, Layout
from vhostcomm.qemu.disk.tools import checked, find

SYSTEM_SIZE: Final = 10_738_466_816
"""Bytes of the system disk, as in the container: its two partitions only."""

DATA_SIZE_MIN: Final = 1 << 20

_OVERHEAD: Final = 512 << 20
"""Bytes for the file system's journal and tables, with a margin."""

_PROBE_SIZE: Final = 16 << 20


@frozen
class Options:
    """How to install.

    Args:
        data_size: of the data disk, in bytes.
        image_format: of all disks.
        layout: of the system disk's partitions.
        disk_options: for the configuration; checked by the caller. Empty for the defaults.
        mac: the guest's MAC address; empty to derive it from the guest's name.
    """

    data_size: int = 16 << 30
    image_format: ImageFormat = ImageFormat.RAW
    layout: Layout = CONTAINER
    disk_options: str = ""
    mac: str = ""


@frozen
class Installed:
    """The installed directory.

    Args:
        folder: its path.
        files: the names in it.
        is_new: whether this run installed it; False if it existed and was left unchanged.
        mac: of the guest; empty if the directory existed.
    """

    folder: Path
    files: tuple[str, ...]
    is_new: bool
    mac: str = ""


def install(pat: str, folder: str, options: Options, report: ReportProgress) -> Installed:
    """Install a `.pat` into a directory, or return the guest that is already installed there.

    Blocks while child processes run. The directory appears only when it is complete. A killed run leaves a temporary
    directory beside the target, which the next run removes.

    Args:
        pat: path of the file.
        folder: path of the guest's directory, which is new or empty.
        options: sizes and formats.
        report: called with the progress.

    Raises:
        InstallError: the `.pat` or the directory is unsuitable.
        DiskError: a tool is missing or fails.
    """
    target = Path(folder).resolve()
    if existing := _existing(target):
        return existing
    if target.parent == target or not target.parent.is_dir():
        raise InstallError(
            f"{folder}: no directory {target.parent}; create it first: mkdir -p {shlex.quote(str(target.parent))}"
        )
    try:
        with open_pat(pat) as opened:
            _check(opened, target, options)
            with _workspace(target) as work:
                mac = _make(opened, work, target, options, report)
                report(Progress("finish"))
                _sync(work)
                work.rename(target)
    except OSError as error:
        raise InstallError(f"{error.filename or target}: {explain(error)}; nothing was installed") from None
    return Installed(target, _names(target), is_new=True, mac=mac)


def _existing(target: Path) -> Installed | None:
    try:
        names = _names(target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"{target}: {explain(error)}; choose another directory") from None
    if CONFIGURATION in names and not all(each.endswith(SUFFIX) for each in names):
        return Installed(target, names, is_new=False)
    if names:
        raise InstallError(f"{target}: contains other files ({', '.join(names[:3])}); choose a new directory")
    if target.is_mount():
        raise InstallError(f"{target}: a mount point, which can't be replaced; choose a directory in it: {target}/nas")
    if target == Path.cwd():  # the shell would stay in the replaced directory
        raise InstallError(
            f"{target}: the current directory, which can't be replaced; choose a directory in it, such as nas"
        )
    return None


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(each.name for each in folder.iterdir()))


def _check(pat: Pat, target: Path, options: Options) -> None:
    tools = (*filesystem.TOOLS, "sfdisk", *(["qemu-img"] if options.image_format is ImageFormat.QCOW2 else []))
    for tool in tools:
        find(tool, path=str(target))
    if options.data_size < DATA_SIZE_MIN or options.data_size % SECTOR_SIZE:
        raise InstallError(
            f"a data disk of {options.data_size} bytes: give {DATA_SIZE_MIN >> 20}M or more, in whole sectors"
        )
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
            f"{target.parent}: {_mib(free)} are free, but the installation needs {_mib(needed)}; free some space, or "
            "choose another place"
        )


def _mib(size: int) -> str:
    return f"{-(-size >> 20)} MiB"


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Lock a temporary directory beside the target for this process, and remove it at the end unless it was renamed."""
    work = target.with_name(f".{target.name}.installing")
    work.mkdir(0o700, exist_ok=True)
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InstallError(f"{target}: another vhostcomm install is creating it; wait until it ends") from None
        _empty(work)  # a killed run's files
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


def _make(pat: Pat, work: Path, target: Path, options: Options, report: ReportProgress) -> str:
    _check_sparse(work, target)
    suffix = {ImageFormat.RAW: "img", ImageFormat.QCOW2: "qcow2"}[options.image_format]
    boot, system, data = (work / f"{name}.img" for name in ("synoboot", "system", "data"))
    _boot(pat, boot, report)
    _system(pat, work, system, options.layout, report)
    data.touch()
    os.truncate(data, options.data_size)
    if options.image_format is ImageFormat.QCOW2:
        for image in (boot, system, data):
            made = image.with_suffix(".qcow2")
            words = ("convert", "-f", "raw", "-O", "qcow2", image.name, made.name)
            with growth_reported(f"convert {image.stem} to qcow2", made, occupied(image), report):
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


def _boot(pat: Pat, image: Path, report: ReportProgress) -> None:
    step = "unpack the boot disk"
    report(Progress(step, 0, pat.boot_size))
    with image.open("xb") as file:
        for number, piece in enumerate(pat.boot()):
            if number == 0 and not piece.startswith(MBR_SIGNATURE, SIGNATURE_OFFSET):
                raise InstallError(f"{pat.boot_name}: its file is not a boot disk (no boot sector)")
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
            report(Progress(step, file.tell(), pat.boot_size))
        file.truncate()
        if file.tell() != pat.boot_size or not pat.boot_size:
            raise InstallError(f"{pat.boot_name}: has {file.tell()} bytes instead of {pat.boot_size}")


def _system(pat: Pat, work: Path, image: Path, layout: Layout, report: ReportProgress) -> None:
    step = "unpack the system"
    done, total = 0, pat.system_size
    report(Progress(step, 0, total))

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        report(Progress(step, done, total))

    files = work / "tree"
    files.mkdir(0o700)
    tree = Tree(files, filesystem.inodes(layout.first), wrote)
    for name, below in SYSTEM.items():
        with damage_reported(name):
            for member, data in unpack(pat.open(name), name):
                tree.add(name, member, data, below=below)
    for path in pat.packages:
        member = copy.copy(pat.members[path])
        member.name = PACKAGES_TARGET + path.removeprefix(PACKAGES)
        with damage_reported(Path(pat.path).name):
            tree.add(Path(pat.path).name, member, pat.open(path))
    tree.finish()
    size = SYSTEM_SIZE if layout is CONTAINER else layout.third_start * SECTOR_SIZE + (1 << 20)
    partition(image, size, layout, path=image)
    with growth_reported("make the file system", image, total, report):
        filesystem.make(image, layout.first, files)
    report(Progress("set owners and modes"))
    filesystem.set_owners(image, layout.first, tree.nodes)
    report(Progress("check the file system"))
    filesystem.check(image, layout.first)
    shutil.rmtree(files)


def _check_sparse(work: Path, target: Path) -> None:
    probe = work / "probe"
    probe.touch()
    os.truncate(probe, _PROBE_SIZE)
    if not is_sparse(probe):
        raise InstallError(
            f"{target.parent}: its file system has no sparse files, so the disks would occupy their full size; choose "
            "another place"
        )
    probe.unlink()


def is_sparse(path: Path) -> bool:
    """Return whether a file occupies less than half of its size."""
    return occupied(path) < path.stat().st_size // 2


def _sync(work: Path) -> None:
    """Write everything to the disk before the directory gets its final name."""
    for each in (*work.iterdir(), work):
        fd = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
