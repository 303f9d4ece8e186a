"""Lock unix socket paths against other processes: one record lock for each path, in one file for each directory.

A directory needs only one descriptor, whatever the number of sockets in it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from attrs import define, field

from vhostcomm.channel.file_errors import error_of, leads_to, owner, remedy
from vhostcomm.errors import PlaceError, ServeError

_FLOCK: Final = struct.Struct("@hhqqi4x")
"""struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid."""

_REMEDY: Final = "stop it, or choose another socket (for run: another --guest)"

_REMOVAL: Final = 0.001
"""Seconds before the next attempt while the last holder removes the file, which takes no time."""


@define
class _File:
    """An open lock file, with the records that this process holds."""

    path: Path
    fd: int
    held: set[int] = field(factory=set)


_files: Final[dict[tuple[int, int], _File]] = {}
"""The open lock files, by device and inode."""

_guards: Final[defaultdict[tuple[int, int], threading.Lock]] = defaultdict(threading.Lock)
"""One lock for each directory, by device and inode: a thread that hangs in one must not keep another from the rest."""


def lock_file(path: Path) -> Path:
    """Return the lock file for a socket's path. Each user has a separate one, since only its user can open it."""
    return path.with_name(f".vhostcomm-{os.geteuid()}.lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a path against other daemons: a second one would unlink the socket and take over the path silently.

    Raises:
        ServeError: another process holds the lock, or locking is impossible.
    """
    number = int.from_bytes(blake2b(os.fsencode(path.name), digest_size=7).digest(), "little")
    guard = _guard(path.parent)
    with guard:
        file = _acquire(path, number)
    try:
        yield
    finally:
        with guard:
            _lock(file.fd, fcntl.F_UNLCK, number)
            file.held.remove(number)
            _close_unused(file)


def _guard(folder: Path) -> threading.Lock:
    with suppress(OSError):  # reported with the lock file
        found = folder.stat()
        return _guards[found.st_dev, found.st_ino]
    return threading.Lock()


def _acquire(path: Path, number: int) -> _File:
    while True:
        file = _open(lock_file(path), path)
        try:
            if number in file.held:
                raise _taken(path, file.path)
            try:
                _lock(file.fd, fcntl.F_WRLCK, number)
            except OSError:
                if not _is_being_removed(file, number):
                    raise _taken(path, file.path) from None
                time.sleep(_REMOVAL)
                continue
            # The last holder may have removed the file between our open and our lock.
            if leads_to(file.path, file.fd):
                file.held.add(number)
                return file
            _lock(file.fd, fcntl.F_UNLCK, number)
        finally:
            _close_unused(file)


def _taken(path: Path, lock: Path) -> ServeError:
    return ServeError(
        f"{path}: another process already serves it (it holds {lock}); `fuser {shlex.quote(str(lock))}` names it: {_REMEDY}"
    )


def _open(path: Path, sock: Path) -> _File:
    """Open the lock file at a path, to lock a socket's path."""
    with suppress(OSError):
        found = os.lstat(path)
        if known := _files.get((found.st_dev, found.st_ino)):
            return known
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        # In a world-writable directory, another user may have made the file.
        whose = owner(path)
        what = _foreign(whose) if whose else remedy(sock, error)
        raise error_of(error)(f"{path}: the sockets' lock can't be made: {error.strerror}{what}") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size or found.st_uid != os.geteuid():
        os.close(fd)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            raise PlaceError(f"{path}: the sockets' lock can't be used{_foreign(owner(path))}")
        raise ServeError(f"{path}: is in the place of the sockets' lock, but is not a lock; move it away")
    made = _files[found.st_dev, found.st_ino] = _File(path, fd)
    return made


def _close_unused(file: _File) -> None:
    """Close a lock file without locks of this process, and remove it if no process has one."""
    if file.held:
        return
    for key in [key for key, each in _files.items() if each is file]:
        del _files[key]
    with suppress(OSError):
        _lock(file.fd, fcntl.F_WRLCK, 0, 0)
        if leads_to(file.path, file.fd):
            file.path.unlink()
    os.close(file.fd)


def _is_being_removed(file: _File, number: int) -> bool:
    """Return whether a lock of the whole file blocks the record's lock, or nothing any more."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    kind, _, _, length, _ = _FLOCK.unpack(fcntl.fcntl(file.fd, fcntl.F_OFD_GETLK, asked))
    return bool(kind == fcntl.F_UNLCK or length == 0)


def _lock(fd: int, kind: int, start: int, length: int = 1) -> None:
    """Lock or unlock, or raise OSError. The lock belongs to the open file, not to the process."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def _foreign(whose: str) -> str:
    return f"; it belongs to {whose}: choose another path, or stop the daemons of that user and remove it"
