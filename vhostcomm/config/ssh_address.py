"""Addresses of control surfaces on other hosts, reached by ssh. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attrs import define, frozen

from vhostcomm.config.address import SYSTEM_RUNTIME
from vhostcomm.config.http_address import CONTROL_NAME

SCHEME: Final = "ssh://"

_ADDRESS: Final = re.compile(
    r"ssh://(?P<destination>([A-Za-z0-9_][A-Za-z0-9._-]{0,63}@)?([A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\]))"
    r"(:(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._/@-]+)?/?"
)
"""No part may look like a flag, or contain what ssh expands in a forwarding (%, $, a further colon)."""


@frozen
class SshAddress:
    """A control surface on another host.

    Args:
        destination: [USER@]HOST, in ssh's form; HOST may be a name in ~/.ssh/config.
        port: ssh's port, or "" for that of the configuration.
        path: the surface's socket on that host.
    """

    destination: str
    port: str
    path: str

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        path = "" if self.path == _DEFAULT_PATH else self.path
        user, at, host = self.destination.rpartition("@")
        return f"{SCHEME}{user}{at}{f'[{host}]' if ':' in host else host}{port}{path}"


_DEFAULT_PATH: Final = str(SYSTEM_RUNTIME / CONTROL_NAME)


def parse(text: str) -> SshAddress:
    """Parse ``ssh://[USER@]HOST[:PORT][/PATH]``.

    Raises:
        ValueError: with the reason.
    """
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not ssh://[USER@]HOST[:PORT][/PATH of the control socket on that host]")
    destination = match["destination"].replace("[", "").replace("]", "")
    return SshAddress(destination, match["port"] or "", match["path"] or _DEFAULT_PATH)


@define
class Forwarded:
    """A forwarded control surface; `path` is the local socket, and `why_not` why it can't be used."""

    remote: SshAddress
    path: Path
    why_not: str = ""

    def __str__(self) -> str:
        return str(self.remote)
