"""The flags of a cluster: its etcd, and this host's place in it."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.output import print_remark
from vhostcomm.config.http_address import TLS, control_address
from vhostcomm.config.ssh_address import SCHEME
from vhostcomm.config.ssh_address import parse as parse_ssh
from vhostcomm.errors import UsageError, VhostcommError

if TYPE_CHECKING:
    from vhostcomm.cluster.address import Access
    from vhostcomm.cluster.lock import RunLock
    from vhostcomm.daemon.membership import Membership
    from vhostcomm.log.logs import Log


def flag(name: str, metavar: str, help: str, **more: Any) -> Any:
    """Make a flag whose value may also come from the environment: of `--cluster-ca`, from VHOSTCOMM_CLUSTER_CA."""
    variable = "VHOSTCOMM_" + name.removeprefix("--").upper().replace("-", "_")
    return Parameter(name=name, metavar=metavar, env_var=variable, help=help, **more)


def reject_unused(options: Any, why: str, *names: str) -> None:
    """Reject flags that have no effect; their variables in the environment are ignored.

    Raises:
        UsageError: such a flag is given.
    """
    for name in names:
        value, variable = getattr(options, name), os.environ.get(f"VHOSTCOMM_{name.upper()}", "")
        if value and value != type(value)(variable):  # a path may be spelled differently
            raise UsageError(f"--{name.replace('_', '-')} has no effect {why}")


def _cluster(help: str) -> Any:
    return flag("--cluster", "etcd://HOST:PORT,…", help)


@Parameter(name="*", group=Group("The cluster", sort_key=5), show_default=False)
@frozen
class ClusterOptions:
    """Where the etcd of a cluster is, and how to sign in; see `Access`."""

    cluster: Annotated[
        str,
        _cluster("The etcd to find the hosts in: its members, with an optional /PREFIX of its keys (/vhostcomm/v1/)."),
    ] = ""
    cluster_ca: Annotated[
        str, flag("--cluster-ca", "FILE", "Use TLS; etcd's certificate is signed by an authority in this file.")
    ] = ""
    cluster_cert: Annotated[
        str, flag("--cluster-cert", "FILE", "This host's certificate for etcd, without a common name.")
    ] = ""
    cluster_key: Annotated[
        str, flag("--cluster-key", "FILE", "The key of that certificate, if it has its own file.")
    ] = ""
    cluster_user: Annotated[
        str,
        flag(
            "--cluster-user",
            "NAME",
            "The user for etcd; its password is in the environment variable VHOSTCOMM_CLUSTER_PASSWORD.",
        ),
    ] = ""

    def __attrs_post_init__(self) -> None:
        if not self.cluster:
            reject_unused(self, "without --cluster", *(each.name for each in attrs.fields(type(self))))

    def access(self) -> Access:
        """Return where etcd is.

        Raises:
            UsageError: a flag is invalid, or httpx is missing.
        """
        if find_spec("httpx") is None:
            raise UsageError(
                "--cluster needs the Python package httpx; install it into the environment of vhostcomm: pip install httpx"
            )
        from vhostcomm.cluster.address import Access, parse

        try:
            endpoints, prefix = parse(self.cluster)
        except ValueError as error:
            raise UsageError(f"--cluster: {error}") from None
        if self.cluster_cert and not self.cluster_ca:
            raise UsageError("--cluster-cert needs --cluster-ca: without that, connections have no TLS")
        if self.cluster_key and not self.cluster_cert:
            raise UsageError("--cluster-key needs --cluster-cert")
        password = os.environ.get(PASSWORD, "")
        if bool(self.cluster_user) != bool(password):
            raise UsageError(f"--cluster-user and {PASSWORD} in the environment need each other")
        made = Access(
            endpoints, prefix, self.cluster_ca, self.cluster_cert, self.cluster_key, self.cluster_user, password
        )
        made.context()  # a missing file is a mistake of now
        return made

    def controls(self) -> list[str]:
        """Return the addresses of the hosts' control surfaces, as `--control` takes them. Prints what can't be used.

        Raises:
            UsageError: a flag is invalid.
            VhostcommError: etcd doesn't answer, or no host can be asked.
        """
        access = self.access()
        import trio

        from vhostcomm.cluster.following import hosts_of

        hosts = trio.run(hosts_of, access)
        for each in hosts:
            if not _is_usable(each.control):
                print_remark(
                    f"{each.host} can't be asked: its daemon publishes "
                    f"{each.control or 'no control surface'}; start it with --cluster-control ssh://{each.host}"
                )
        if found := [each.control for each in hosts if _is_usable(each.control)]:
            return found
        raise VhostcommError(f"{self.cluster} lists no host to ask; start vhostcomm serve --cluster on a host")


def _is_usable(control: str) -> bool:
    """Return whether an address that another host has written can be used: it may be anything."""
    if not control.startswith(_USABLE):
        return False
    try:
        return bool(parse_ssh(control) if control.startswith(SCHEME) else control_address(control))
    except ValueError:
        return False


_USABLE: Final = (SCHEME, TLS, "/")
"""Addresses that are used as another host has written them. A token would go to whatever listens at a tcp: address."""

PASSWORD: Final = "VHOSTCOMM_CLUSTER_PASSWORD"  # noqa: S105 - the variable's name


def _in_order(_: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Put --cluster first in help, although a subclass declares it anew."""
    return sorted(fields, key=lambda each: each.name != "cluster")


_SHARED: Final = (
    "The members of the etcd that several hosts share, with an optional /PREFIX of its keys (/vhostcomm/v1/)."
)


@frozen(field_transformer=_in_order)
class HostOptions(ClusterOptions):
    """The same, for a host that takes part, and this host's name."""

    cluster: Annotated[str, _cluster(f"{_SHARED} A lock there keeps other hosts from starting the guest.")] = ""
    cluster_host: Annotated[
        str, flag("--cluster-host", "NAME", "This host's name in the cluster; by default its hostname.")
    ] = ""

    def host(self) -> str:
        """Return this host's name.

        Raises:
            UsageError: it is invalid.
        """
        from vhostcomm.cluster.records import host_name

        try:
            return host_name(self.cluster_host or socket.gethostname())
        except ValueError as error:
            raise UsageError(f"--cluster-host: {error}") from None

    def lock(self, guest: str, log: Log) -> RunLock | None:
        """Return the lock of a guest that `run` starts; None without a cluster.

        Raises:
            UsageError: a flag is invalid.
        """
        if not self.cluster:
            return None
        access, host = self.access(), self.host()
        from vhostcomm.cluster.lock import RunLock

        return RunLock(access, guest, host, log)


@frozen(field_transformer=_in_order)
class MemberOptions(HostOptions):
    """The same, and the address of this host's daemon."""

    cluster: Annotated[str, _cluster(f"{_SHARED} The daemon publishes its guests there.")] = ""
    cluster_control: Annotated[
        str,
        flag(
            "--cluster-control",
            "ADDRESS",
            "The --control with which other machines ask this daemon; by default ssh:// with the host's name, if it has a unix socket.",
        ),
    ] = ""

    def membership(self) -> Membership:
        """Return this host's membership.

        Raises:
            UsageError: a flag is invalid.
        """
        access, host = self.access(), self.host()
        from vhostcomm.cluster.tree_file import NAME, TreeFile, state_directory
        from vhostcomm.daemon.membership import Membership

        return Membership(access, host, self.cluster_control, TreeFile(access.prefix, state_directory() / NAME))
