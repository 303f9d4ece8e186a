"""Addresses of guests' channels: the values of `--sock` and `sock =`. Pure, except for reading the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config import values

PATH_LIMIT: Final = 107
"""Maximum bytes of a unix socket's path: sockaddr_un has 108, including a NUL."""


SYSTEM_RUNTIME: Final = Path("/run/vhostcomm")
"""Root's runtime directory, which is also the unit's: the directory of sockets without a path."""


@frozen
class Listen:
    """A unix socket that vhostcomm binds and QEMU connects to."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@frozen
class Connect:
    """A unix socket that QEMU or libvirt binds and vhostcomm connects to."""

    path: Path

    def __str__(self) -> str:
        return f"connect:{self.path}"


@frozen
class ListenTcp:
    """A TCP address that vhostcomm binds and QEMU connects to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:{host_and_port(self.host, self.port)}"


@frozen
class Activated:
    """A listening socket that systemd has passed, by its file descriptor."""

    fd: int
    where: str

    def __str__(self) -> str:
        return f"systemd:{self.where}"


def host_and_port(host: str, port: int) -> str:
    """Format host and port as one word, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Address = Listen | Connect | ListenTcp | Activated


@frozen
class Sock:
    """The value of one `--sock`: the guest's name, its address, and its UUID if the name is one."""

    name: str
    address: Address
    uuid: str = ""


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of sockets without a path: systemd's runtime directory, else the user's."""
    if given := environment.get("RUNTIME_DIRECTORY"):
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return SYSTEM_RUNTIME
    if given := environment.get("XDG_RUNTIME_DIR"):
        return Path(given) / "vhostcomm"
    raise ValueError(
        "there is no runtime directory for a socket without a path: XDG_RUNTIME_DIR is not set; "
        "set it (in a unit: RuntimeDirectory=vhostcomm), or give the socket as a path with a slash"
    )


def example_socket(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return a guest's socket to show as an example: in this user's runtime directory, unless that is too long."""
    try:
        path = runtime_directory(environment) / name
    except ValueError:
        return SYSTEM_RUNTIME / name
    return path if len(os.fsencode(path)) <= PATH_LIMIT else SYSTEM_RUNTIME / name


def own_example(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return an example with this user's runtime directory instead of the system's."""
    return text.replace(str(SYSTEM_RUNTIME), str(example_socket("", environment)))


def parse_sock(text: object, environment: Mapping[str, str] = os.environ) -> Sock:
    """Parse ``[NAME=]SOCK``. The name ends at the first "="; the path may contain more.

    Raises:
        ValueError: with the reason.
    """
    given = values.string(text)
    label, equals, rest = given.partition("=")
    chosen = ""
    if equals and "/" not in label and ":" not in label:
        chosen, given = values.name(label), rest
    if given.startswith("tcp:"):
        tcp = tcp_address(given.removeprefix("tcp:"))
        return Sock(chosen or _name_of(f"{tcp.host.replace(':', '_')}-{tcp.port}", given), tcp)
    kind: type[Listen | Connect] = Connect if given.startswith("connect:") else Listen
    place = given.removeprefix("connect:")
    if not place:
        raise ValueError("the socket's path is missing")
    name_uuid = _as_uuid(place)
    if name_uuid:
        path = runtime_directory(environment) / place
    else:
        path = Path(place).absolute()
        name_uuid = _as_uuid(path.name) or _as_uuid(path.stem)
    check_path(path)
    return Sock(chosen or _name_of(path.name, given), kind(path), name_uuid)


def _name_of(made: str, given: str) -> str:
    """Derive the name of a guest without an explicit one."""
    try:
        return values.name(made)
    except ValueError as error:
        if _is_host_and_port(given):
            raise ValueError(f"a TCP address begins with tcp: write tcp:{given}") from None
        raise ValueError(f"{made!r} can't be the guest's name ({error}); name it: NAME={given}") from None


def _is_host_and_port(text: str) -> bool:
    try:
        return bool(tcp_address(text))
    except ValueError:
        return False


def check_path(path: Path) -> None:
    """Reject a path that no unix socket can have, such as the root directory, and the form of --qemu-host-api."""
    values.path(str(path))
    if rest := str(path).partition("/unix:")[2]:
        raise ValueError(f"a unix socket is given by its path alone: write {rest}")
    if not path.name:
        raise ValueError(f"{path} is a directory; give the path of a socket")
    size = len(os.fsencode(path))
    if size > PATH_LIMIT:
        raise ValueError(f"its path {path} has {size} bytes, but a unix socket's path has at most {PATH_LIMIT}")


def _as_uuid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        return ""
    return str(uuid.UUID(text))


def tcp_address(text: str, prefix: str = "tcp:") -> ListenTcp:
    """Parse ``HOST:PORT``, which has followed a prefix.

    Raises:
        ValueError: with the reason.
    """
    match = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([0-9]{1,5})", text)
    if not match or int(match[3]) > 0xFFFF:
        raise ValueError(f"a TCP address is {prefix}HOST:PORT, an IPv6 host in brackets")
    if match[1] is not None and not _is_ipv6(match[1]):
        raise ValueError(f"{match[1]!r} is not an IPv6 address")
    if match[1] is None and not _HOST.fullmatch(match[2]):
        raise ValueError(f"{match[2]!r} is not a host: an IPv4 address, an IPv6 address in brackets, or a host's name")
    return ListenTcp(match[1] or match[2], int(match[3]))


def _is_ipv6(text: str) -> bool:
    try:
        scope = ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False
    return scope is None or _INTERFACE.fullmatch(scope) is not None


_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
"""A network interface after the "%" of an address. Linux allows nearly any 15 bytes, but these are the usual ones."""

_HOST: Final = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""Names that the resolver accepts; it has different errors for others."""
