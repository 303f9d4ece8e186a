"""Choose the daemon that a verb asks: the one of --control, or all daemons on this host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from attrs import evolve, frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.cluster import ClusterOptions, flag, reject_unused
from vhostcomm.cli.daemons import Daemons
from vhostcomm.cli.hosts import split
from vhostcomm.config import values
from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.config.http_address import (
    CONTROL_NAME,
    TLS,
    control_address,
    control_folders,
    control_places,
    runtime_directories,
)
from vhostcomm.config.ssh_address import SCHEME, Forwarded, SshAddress, parse
from vhostcomm.errors import PlaceError, UsageError
from vhostcomm.linux.starting import attempts

if TYPE_CHECKING:
    import ssl

Where: TypeAlias = Listen | ListenTcp | Forwarded

CONNECT_TIMEOUT: Final = 1.0
"""Seconds to find out whether a daemon listens on a socket. A connection takes no time."""


@Parameter(name="*", group=Group("The daemon", sort_key=9), show_default=False)
@frozen
class DaemonOptions:
    """Which daemon to ask, as given in flags. `cluster` has the addresses of all hosts, if `control` is not given."""

    control: Annotated[
        list[str] | None,
        flag(
            "--control",
            "ADDRESS",
            "The daemon's address: a path, tcp:HOST:PORT, or for another host tls:HOST:PORT or ssh://[USER@]HOST[:PORT][/PATH]. May be "
            "repeated: each guest is then asked on the host that has it. By default every daemon in the runtime directory.",
            env_var_split=lambda _, text, **_options: split(text),
        ),
    ] = None
    control_token: Annotated[
        str, flag("--control-token", "TOKEN", "The token of a daemon over TCP; safer in the environment.")
    ] = ""
    control_ca: Annotated[Path | None, flag("--control-ca", "FILE", "The CA of daemons with TLS.")] = None
    control_cert: Annotated[
        Path | None, flag("--control-cert", "FILE", "A certificate of that CA, for daemons with TLS.")
    ] = None
    control_key: Annotated[
        Path | None,
        flag("--control-key", "FILE", "The key of that certificate. Other users must not be able to read it."),
    ] = None
    cluster: ClusterOptions | None = None

    @contextmanager
    def asked(self, verb: str, timeout: float | None = None) -> Iterator[Daemons]:
        """Provide the daemons to ask: the one of --control, else all with a socket in the runtime directory.

        Args:
            verb: the verb that asks, for the daemons' logs.
            timeout: seconds for answers; None to wait as long as a busy daemon may need.

        Raises:
            UsageError: the address or the token is invalid, or a flag has no effect.
        """
        chosen, schemes = self, {each.partition(":")[0] for each in self.control or ()}
        if self.cluster and self.cluster.cluster:
            if self.control:
                reject_unused(self.cluster, "with --control (VHOSTCOMM_CONTROL): give one of them", "cluster")
            else:
                chosen, schemes = evolve(self, control=self.cluster.controls()), {"tls"}
        if "tcp" not in schemes:
            reject_unused(self, "without --control tcp:HOST:PORT", "control_token")
        if "tls" not in schemes:
            reject_unused(self, "without --control tls:HOST:PORT", "control_ca", "control_cert", "control_key")
        from vhostcomm.control.client import MARGIN, Client

        try:
            token = self.control_token and values.token(self.control_token)
        except ValueError as error:
            raise UsageError(f"--control-token (VHOSTCOMM_CONTROL_TOKEN): {error}") from None
        tls = chosen.tls()
        with chosen.found() as find:
            yield Daemons(
                lambda: [Client(where, token, verb, margin=timeout or MARGIN, tls=tls) for where in find()],
                of_hosts=len(chosen.control or ()) > 1,
            )

    def tls(self) -> ssl.SSLContext | None:
        """Read the files for daemons with TLS, if there are such daemons."""
        where = next((each for each in self.control or () if each.startswith(TLS)), None)
        if where is None:
            return None
        if not (self.control_ca and self.control_cert and self.control_key):
            raise UsageError(
                f"--control {where}: TLS needs three files: --control-ca, --control-cert and --control-key"
            )
        from vhostcomm.config.certificates import client_context

        try:
            return client_context(self.control_ca, self.control_cert, self.control_key)
        except PlaceError as error:
            raise UsageError(f"--control {where}: {error}") from None

    @contextmanager
    def found(self) -> Iterator[Callable[[], Sequence[Where]]]:
        """Provide a function that finds the daemons; other hosts are connected inside the block."""
        given = [_address(each) for each in self.control or () if each]
        remote = [each for each in given if isinstance(each, SshAddress)]
        if not remote:
            here = [each for each in given if not isinstance(each, SshAddress)]
            yield (lambda: here) if here else _local
            return
        from vhostcomm.control.over_ssh import forwarded

        with forwarded(remote) as reached:
            left = iter(reached)
            places = [next(left) if isinstance(each, SshAddress) else each for each in given]
            yield lambda: places


def _local() -> list[Where]:
    """Find the daemons of this host."""
    found: list[Listen] = []
    for _ in attempts(*control_folders()):
        found = control_places()
        if live := [*filter(_lives, found)] if len(found) > 1 else found:
            return [*live]
    usual = _address(str(found[0].path if found else runtime_directories()[0] / CONTROL_NAME))
    assert not isinstance(usual, SshAddress)
    return [usual]


def _address(text: str) -> Listen | ListenTcp | SshAddress:
    try:
        where = parse(text) if text.startswith(SCHEME) else control_address(text)
    except ValueError as error:
        raise UsageError(f"--control: {error}") from None
    if where is None:
        raise UsageError("--control none is for a daemon; give the address of the daemon to ask")
    return where


def _lives(place: Listen) -> bool:
    """Return whether a daemon listens there. True also for a busy or forbidden one, whose error is reported later."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(CONNECT_TIMEOUT)
        try:
            trial.connect(str(place.path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
