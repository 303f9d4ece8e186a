"""Addresses of the HTTP servers: the control surface, the web page and the API of qemu-host. Pure, except for the environment."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config import values
from vhostcomm.config.address import (
    SYSTEM_RUNTIME,
    Listen,
    ListenTcp,
    check_path,
    host_and_port,
    runtime_directory,
    tcp_address,
)

CONTROL_NAME: Final = "control.sock"
"""The control surface's socket in the runtime directory."""

CONTROL_FOLDER: Final = "control"
"""Directory in the runtime directory for the control sockets of further daemons: launchers, and those of one guest."""


TLS: Final = "tls:"
"""Begins the address of a control surface with TLS."""


@frozen
class ListenTls(ListenTcp):
    """A TCP address with TLS, whose clients need a certificate."""

    def __str__(self) -> str:
        return f"tls:{host_and_port(self.host, self.port)}"


def control_address(text: str, environment: Mapping[str, str] = os.environ) -> Listen | ListenTcp | None:
    """Return the address of the control surface: for "" in the runtime directory, for "none" no address.

    Raises:
        ValueError: the address is invalid, or there is no runtime directory.
    """
    if text == "none":
        return None
    if text.startswith("ssh:"):
        raise ValueError("a daemon can't listen on another host; ssh:// is for verbs that ask a daemon")
    if text.startswith("tcp:"):
        return tcp_address(text.removeprefix("tcp:"))
    if text.startswith(TLS):
        tcp = tcp_address(text.removeprefix(TLS), TLS)
        return ListenTls(tcp.host, tcp.port)
    if "://" in text:
        raise ValueError("a control address is a path, tcp:HOST:PORT or tls:HOST:PORT; of another host ssh://HOST")
    path = Path(text).absolute() if text else runtime_directory(environment) / CONTROL_NAME
    check_path(path)
    return Listen(path)


def own_control_places(name: str, environment: Mapping[str, str] = os.environ) -> list[Listen]:
    """Return the control sockets for a daemon beside others: it uses the first that is free.

    Args:
        name: of one of its guests.
        environment: has the runtime directory.

    Raises:
        ValueError: there is no runtime directory, or its path is too long.
    """
    folder = runtime_directory(environment) / CONTROL_FOLDER
    places = [Listen(folder / f"{each}.sock") for each in (name, f"{name}-{os.getpid()}")]
    for place in places:
        check_path(place.path)
    return places


def runtime_directories(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the directories to search for daemons: the runtime directory, and for a user also the system's."""
    own = []
    with suppress(ValueError):
        own.append(runtime_directory(environment))
    is_given = bool(environment.get("RUNTIME_DIRECTORY"))
    return own if is_given or SYSTEM_RUNTIME in own else [*own, SYSTEM_RUNTIME]


def control_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the directories in which control surfaces appear, or their directories."""
    parents = {runtime.parent: None for runtime in runtime_directories(environment)}
    return [*parents, *(path for each in _runtimes(environment) for path in (each, each / CONTROL_FOLDER))]


def control_places(environment: Mapping[str, str] = os.environ) -> list[Listen]:
    """Return the sockets in the runtime directories that look like control surfaces, the first daemon's first."""
    found: list[Path] = []
    for each in _runtimes(environment):
        found.append(each / CONTROL_NAME)
        with suppress(PermissionError):  # the system's directory, of which this user may see nothing
            found += sorted((each / CONTROL_FOLDER).glob("*.sock"))
    return [Listen(path) for path in found if is_socket(path)]


def _runtimes(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the runtime directories. systemd creates one for each instance of a unit: /run/vhostcomm-run-nas."""
    for runtime in runtime_directories(environment):
        yield runtime
        yield from sorted(runtime.parent.glob(f"{runtime.name}-*"))


def is_socket(path: Path) -> bool:
    """Return whether a visible socket exists at the path."""
    try:
        return path.is_socket()
    except PermissionError:
        return False


def is_of_this_machine(host: str) -> bool:
    """Return whether only this machine can reach a server at the host: a loopback address, or localhost.

    Other names count as reachable: what they mean may change after the check.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_api(text: str) -> Listen | ListenTcp:
    """Parse the address of an API: ``HOST:PORT``, ``tcp:HOST:PORT``, ``unix:/PATH`` or ``/PATH``.

    Without a host, it is every address of this machine.

    Raises:
        ValueError: with the reason.
    """
    place = text.removeprefix("unix:")
    if place.startswith("/"):
        check_path(Path(place))
        return Listen(Path(place))
    if place != text:
        raise ValueError("a unix socket is given by its absolute path")
    place = text.removeprefix("tcp:")
    if place.startswith(":"):
        return tcp_address(("[::]" if _has_ipv6() else "0.0.0.0") + place, "")  # noqa: S104 - what was asked for
    return tcp_address(place, "")


def _has_ipv6() -> bool:
    """Return whether `::` can be bound, which then includes IPv4."""
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::", 0))
    except OSError:
        return False
    return True


def web_address(text: str) -> ListenTcp:
    """Parse the address of the web page: ``HOST:PORT`` or ``tcp:HOST:PORT``.

    Raises:
        ValueError: with the reason.
    """
    return tcp_address(text.removeprefix("tcp:"), "")


def _checked(parse: Callable[[str], object], text: object) -> str:
    """Check a text with `parse`, which raises a ValueError, and return it unchanged."""
    parse(checked := values.string(text))
    return checked


API: Final = values.Kind("ADDRESS", "HOST:PORT, `tcp:HOST:PORT`, `unix:/PATH` or `/PATH`", partial(_checked, parse_api))
CONTROL: Final = values.Kind(
    "ADDRESS", "a path, `tcp:HOST:PORT`, `tls:HOST:PORT` or `none`", partial(_checked, control_address)
)
WEB: Final = values.Kind("ADDRESS", "HOST:PORT or `tcp:HOST:PORT`", partial(_checked, web_address))
