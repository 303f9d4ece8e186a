"""The flags of verbs that act as a guest at a daemon's socket."""

from __future__ import annotations

from vhostcomm.cli.flags import parsed
from vhostcomm.config.address import Activated, Connect, Listen, ListenTcp, parse_sock
from vhostcomm.errors import UsageError


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
