"""The flags of verbs that act as a guest at a daemon's socket."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vhostcomm.cli.daemon_options import CONNECT_TIMEOUT, DaemonOptions
from vhostcomm.cli.flags import parsed
from vhostcomm.config.address import Activated, Connect, Listen, ListenTcp, parse_sock, runtime_directory
from vhostcomm.config.http_address import control_places
from vhostcomm.errors import UsageError, VhostcommError

if TYPE_CHECKING:
    from vhostcomm.probe import UnreachableError


def daemons_socket(sock: str, timeout: float) -> Listen | ListenTcp | Activated:
    """Parse `--sock` and `--timeout` of a verb that acts as a guest.

    Raises:
        UsageError: one of them is invalid.
    """
    where = parsed(parse_sock, "--sock", sock).address
    if isinstance(where, Connect):
        raise UsageError("--sock connect:… is for a daemon; this verb acts as a guest: give the daemon's socket")
    if not 0 < timeout < 3600:
        raise UsageError(f"--timeout is {timeout:g}: expected seconds, more than 0 and less than 3600")
    return where


def advice(where: Listen | ListenTcp | Activated, error: UnreachableError) -> str:
    """Return what to do about a daemon that can't be asked, such as to use the socket of the guest with that name."""
    if isinstance(where, Listen) and error.is_absent:
        with suppress(ValueError, OSError, VhostcommError):
            other = runtime_directory() / where.path.name
            found = str(other) if other != where.path and _is_bound(other) else _served(where.path)
            if found:
                return f"There is no such socket; did you mean {found}?"
    return error.advice


def _served(path: Path) -> str:
    """Return the socket of the guest with that file's name, if a daemon of this host serves one elsewhere; else ""."""
    if not control_places():
        return ""
    with DaemonOptions().asked("probe", CONNECT_TIMEOUT) as daemons:
        socks = [str(each["sock"]) for each in daemons.guests()[0] if each["name"] == path.name]
    return next((each for each in socks if each.startswith(("/", "tcp:")) and each != str(path)), "")


def _is_bound(path: Path) -> bool:
    """Return whether a process has bound a stream socket that this user can connect to, without connecting to it.

    A connection would be the guest's for its daemon. Linux rejects a socket of another type before it connects, and a
    leftover before that (unix_find_bsd in af_unix.c).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
        return trial.connect_ex(str(path)) == errno.EPROTOTYPE
