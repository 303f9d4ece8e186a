"""Collect the system's files from untrusted archives in a directory of this host, and their owners in memory.

In the directory, every file has the user's own uid and mode 0600, and every directory 0700: the real owners and modes are
set later in the file system made from it. A check of each path uses the paths added before, and never follows a link on
this host.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from attrs import field, frozen

from vhostcomm.errors import InstallError
from vhostcomm.install.stream import CHUNK, cut_off

_PATH_MAX: Final = 2048
"""Maximum bytes of a path: debugfs reads lines of 8192 bytes, and doubles quotes."""

_ID_MAX: Final = 2**32 - 2
_TIME_MAX: Final = 2**32 - 1
"""Maximum seconds since 1970; ext4 has two bits more."""


@frozen
class Node:
    """An entry of the system: `mode` with its file type, the ids of its owner and group, and its modification time."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0


_IMPLIED: Final = Node(stat.S_IFDIR | 0o755)
"""A directory that no archive lists."""


@frozen
class Tree:
    """The files added so far.

    Args:
        folder: an empty directory on this host for them.
        most: maximum number of files and directories.
        wrote: called with the number of bytes after each write.
        nodes: the entries by path, without a leading slash; the root is "".
    """

    folder: Path
    most: int
    wrote: Callable[[int], None]
    nodes: dict[str, Node] = field(factory=lambda: {"": _IMPLIED})

    def add(self, archive: str, member: tarfile.TarInfo, data: IO[bytes] | None, *, below: str = "") -> None:
        """Add a member of an archive, unless its path exists.

        Args:
            archive: its name, for errors.
            member: the member.
            data: its contents, if it is a file.
            below: the target directory of the archive.

        Raises:
            InstallError: the member is invalid or dangerous.
            OSError: this host can't create it.
        """
        where = f"{archive}: {member.name!a}"
        path = "/".join(filter(None, (below, inside(member.name, where))))
        kind = _kind(member, where)
        there = self.nodes.get(path)
        if there and not (there is _IMPLIED and kind == stat.S_IFDIR):
            return
        if len(self.nodes) >= self.most:
            raise InstallError(
                f"{archive}: more than {self.most} files and directories, which don't fit into the system partition"
            )
        self._parents(path, where)
        filtered(member, self.folder, where, whole_system=True)
        place = self.folder / path
        if kind == stat.S_IFDIR:
            if not there:
                place.mkdir(0o700)
        elif member.islnk():
            target = "/".join(filter(None, (below, inside(member.linkname, where))))
            found = self.nodes.get(target)
            if not found or stat.S_ISDIR(found.mode):
                raise InstallError(
                    f"{where}: a hard link to {member.linkname!a}, which is not an earlier file of the archive"
                )
            os.link(self.folder / target, place, follow_symlinks=False)
            self.nodes[path] = found
            return
        elif kind == stat.S_IFLNK:
            _check_target(path, member.linkname, where)
            place.symlink_to(member.linkname)
        else:
            assert data is not None
            self._write(place, member, data, where)
        mtime = min(max(0, int(member.mtime)), _TIME_MAX)
        mode = kind | (0o777 if kind == stat.S_IFLNK else member.mode & 0o7777)
        self.nodes[path] = Node(mode, _id(member.uid, where), _id(member.gid, where), mtime)
        if kind != stat.S_IFDIR:
            os.utime(place, (mtime, mtime), follow_symlinks=False)

    def finish(self) -> None:
        """Set the times of the directories, after their last entry was added."""
        for path, node in self.nodes.items():
            if stat.S_ISDIR(node.mode) and node is not _IMPLIED:
                os.utime(self.folder / path, (node.mtime, node.mtime))

    def _parents(self, path: str, where: str) -> None:
        parent = ""
        for part in path.split("/")[:-1]:
            parent = f"{parent}/{part}" if parent else part
            node = self.nodes.get(parent)
            if node is None:
                (self.folder / parent).mkdir(0o700)
                self.nodes[parent] = _IMPLIED
            elif not stat.S_ISDIR(node.mode):
                what = "a symbolic link" if stat.S_ISLNK(node.mode) else "a file"
                raise InstallError(f"{where}: is below {parent!a}, which is {what}")

    def _write(self, place: Path, member: tarfile.TarInfo, data: IO[bytes], where: str) -> None:
        left = member.size
        with place.open("xb") as file:
            while left:
                piece = data.read(min(CHUNK, left))
                if not piece:
                    raise cut_off(where)
                file.write(piece)
                left -= len(piece)
                self.wrote(len(piece))


def inside(name: str, where: str) -> str:
    """Return a member's path relative to the root, without `.` and without a trailing slash.

    Raises:
        InstallError: the path leaves the root, or is invalid.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise InstallError(f"{where}: its path is absolute or leads out of the archive's tree, so the .pat is rejected")
    path = "/".join(parts)
    if len(os.fsencode(path)) > _PATH_MAX or any(each in path for each in "\0\n\r"):
        raise InstallError(f"{where}: its path is longer than {_PATH_MAX} bytes, or contains a line end")
    return path


def filtered(member: tarfile.TarInfo, folder: Path, where: str, *, whole_system: bool) -> None:
    """Apply Python's own extraction filter too, if this Python has it (3.11.4 and later; Debian's 3.11.2 lacks it).

    Args:
        member: of the archive.
        folder: the target directory.
        where: for errors.
        whole_system: whether the archive is a system, with absolute links, and not a plain collection of files.

    Raises:
        InstallError: the filter rejects the member.
    """
    check = getattr(tarfile, "tar_filter" if whole_system else "data_filter", None)
    if check is None:
        return
    try:
        check(member, str(folder))
    except tarfile.TarError as error:
        raise InstallError(f"{where}: rejected: {error}") from None


def _kind(member: tarfile.TarInfo, where: str) -> int:
    if member.isreg() or member.islnk():
        return stat.S_IFREG
    if member.isdir():
        return stat.S_IFDIR
    if member.issym():
        return stat.S_IFLNK
    what = "a device" if member.isdev() else f"of type {member.type!a}"
    raise InstallError(f"{where}: {what}; a .pat may contain only files, directories and links, so it is rejected")


def _check_target(path: str, target: str, where: str) -> None:
    """Check a symbolic link. An absolute target is a path in the guest; nothing on this host follows it."""
    if not target or any(each in target for each in "\0\n\r"):
        raise InstallError(f"{where}: a symbolic link to {target!a}")
    if target.startswith("/"):
        return
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise InstallError(f"{where}: a link to {target!a}, outside the system's tree, so the .pat is rejected")


def _id(number: int, where: str) -> int:
    if not 0 <= number <= _ID_MAX:
        raise InstallError(f"{where}: its owner or group is {number}, which is out of range")
    return number
