"""Where a cluster's etcd is, and how to sign in. Pure."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import field, frozen

from vhostcomm.config.certificates import client_context
from vhostcomm.errors import ConfigError, PlaceError

SCHEME: Final = "etcd://"
PREFIX: Final = "/vhostcomm/v1/"
"""The default prefix of the tree's keys."""

_PORT: Final = 2379
_ENDPOINT: Final = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._-]+)+/?")
_EXAMPLE: Final = "etcd://host1:2379,host2:2379,host3:2379"


@frozen
class Access:
    """The members of an etcd, and how to sign in.

    Args:
        endpoints: HOST:PORT of each member.
        prefix: of the tree's keys; it ends with a slash.
        ca: a file with the certificate authority of etcd's certificates; "" for connections without TLS.
        certificate: a file with our certificate, and `key` with its key; "" for none.
        user: for etcd's authentication, with `password`; "" for none.
    """

    endpoints: tuple[str, ...]
    prefix: str = PREFIX
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def urls(self) -> tuple[str, ...]:
        scheme = "https" if self.ca else "http"
        return tuple(f"{scheme}://{each}" for each in self.endpoints)

    def context(self) -> ssl.SSLContext:
        """Return the settings of TLS. Reads the files.

        Raises:
            ConfigError: a file is missing, unsafe or invalid; says which and what to do.
        """
        if not self.ca:
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take a while
        cert, key = (Path(each) if each else None for each in (self.certificate, self.key))
        try:
            return client_context(Path(self.ca), cert, key)
        except PlaceError as error:
            raise ConfigError(f"--cluster: {error}") from None


def parse(text: str) -> tuple[tuple[str, ...], str]:
    """Parse ``etcd://HOST[:PORT],…[/PREFIX]`` into endpoints and prefix.

    Raises:
        ValueError: with the reason.
    """
    if not text.startswith(SCHEME):
        raise ValueError(f"{text!r} does not begin with {SCHEME}; for example: {_EXAMPLE}")
    members, slash, rest = text.removeprefix(SCHEME).partition("/")
    prefix = slash + rest if rest else PREFIX
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"the prefix {prefix!r} is not a path of letters, digits, dots, dashes and underscores")
    return tuple(_endpoints(members)), prefix if prefix.endswith("/") else f"{prefix}/"


def _endpoints(members: str) -> Iterator[str]:
    for each in members.split(","):
        match = _ENDPOINT.fullmatch(each)
        port = int(match["port"] or _PORT) if match else 0
        if not match or not 0 < port < 1 << 16:
            raise ValueError(f"{each!r} is not HOST or HOST:PORT; for example: {_EXAMPLE}")
        yield f"{match['host']}:{port}"
