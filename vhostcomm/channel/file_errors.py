"""Explain why a file can't be created, and what to do; find a file again; find and change its owner."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vhostcomm.config.address import check_path, runtime_directory
from vhostcomm.errors import PlaceError, ServeError

WRONG_PLACE: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}


def error_of(error: OSError) -> type[ServeError]:
    """Return whether the error is permanent, because of the place, or temporary."""
    return PlaceError if error.errno in WRONG_PLACE else ServeError


def remedy(path: Path, error: OSError) -> str:
    """Return what to do about a file that can't be created; "" if that is unknown."""
    match error.errno:
        case errno.ENOENT:
            return f"; make its directory: install -d -m 0700 {shlex.quote(str(path.parent))}"
        case errno.EACCES | errno.EPERM:
            whose = owner(path.parent)
            why_not = f", but it belongs to {whose}: choose another directory" if whose else ""
            return f"; {path.parent} must be writable for uid {os.geteuid()}{why_not}"
        case errno.EROFS:
            uid, gid = os.geteuid(), os.getegid()
            return (
                f"; in a container, mount a volume without :ro at {path.parent}, or with Docker use "
                f"--tmpfs {path.parent}:mode=0700,uid={uid},gid={gid}; "
                f"under systemd, RuntimeDirectory= or ReadWritePaths= of the unit has to name {path.parent}"
            )
        case _:
            return ""


@contextmanager
def suggesting_another(path: Path, name: str) -> Iterator[None]:
    """Add a usable path to the error for a socket in a directory that this user can't write to.

    Args:
        path: of the socket.
        name: of another socket in the runtime directory.
    """
    try:
        yield
    except PlaceError as error:
        raise PlaceError(f"{error}{_suggestion(path, name)}") from None


def _suggestion(path: Path, name: str) -> str:
    existing = next(each for each in path.parents if os.access(each, os.F_OK))
    with suppress(OSError, ValueError):
        own = runtime_directory() / name
        check_path(own)
        if not os.access(existing, os.W_OK) and _is_usable(own.parent):
            return f"; this user can use {own}"
    return ""


def _is_usable(folder: Path) -> bool:
    """Return whether this user may make sockets in the runtime directory, or make it in an existing parent."""
    place = folder if folder.exists() else folder.parent
    found = place.stat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return is_ours and os.access(place, os.W_OK | os.X_OK)


def leads_to(path: Path, file: os.stat_result | int) -> bool:
    """Return whether a file, by its status or descriptor, is still at its path, and no other that replaced it."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(file) if isinstance(file, int) else file)
    return False


def owner(path: Path) -> str:
    """Return the user who owns a file, if it exists and is another user's; else ""."""
    with suppress(OSError):
        if (uid := os.lstat(path).st_uid) != os.geteuid():
            with suppress(KeyError):
                return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
            return f"uid {uid}"
    return ""


def give(path: Path, group: int) -> None:
    """Change the group of our own file, if necessary.

    Raises:
        PlaceError: this user may not do that.
    """
    # The sandbox of our units denies chown() completely.
    if os.lstat(path).st_gid == group:
        return
    try:
        os.chown(path, -1, group, follow_symlinks=False)
    except OSError as error:
        # EINVAL means a user namespace without this group.
        if error.errno not in {errno.EPERM, errno.EINVAL}:
            raise
        name = str(group)
        with suppress(KeyError):
            name = grp.getgrgid(group).gr_name
        way_out = f"; under systemd, Group={name} in the unit; else run as root, or as a user in that group"
        raise PlaceError(
            f"{path}: uid {os.geteuid()} may not give files to the group {name}: {error.strerror}{way_out}"
        ) from None
