"""The values that all kinds of snippets share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, assert_never

import attrs
from attrs import frozen

from vhostcomm.config.address import Activated, Address, Connect, Listen, ListenTcp
from vhostcomm.config.identity import derived_uuid
from vhostcomm.config.models import SECTIONS, Config, GuestConfig, settings
from vhostcomm.config.values import key
from vhostcomm.errors import UsageError
from vhostcomm.qemu.argv import qmp_socket
from vhostcomm.qemu.capabilities import Reconnect
from vhostcomm.qemu.machine import AnyVchannel, TcpVchannel, Vchannel

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


OLDEST: Final = (7, 2)
"""The oldest QEMU that vhostcomm supports: major and minor version."""

PORT: Final = (
    "the guest's Linux names the port /dev/vport1p1, as on a genuine host, if exactly one virtio device precedes the "
    "controller, such as a network card at 0x2; without one the name is /dev/vport0p1. It is unknown whether a genuine "
    "guest finds the port by its virtio name or as /dev/vport1p1"
)
"""What the name of the port depends on."""


def qmp_of(guest: GuestConfig) -> tuple[str, ...]:
    """Return QEMU's arguments for the guest's QMP socket; none if its `qmp` is empty.

    Raises:
        UsageError: the path has unprintable characters, so it can't be pasted.
    """
    if not guest.qmp:
        return ()
    if not guest.qmp.isprintable():
        raise UsageError(
            f"guest {guest.name}: qmp {guest.qmp!a} can't be pasted; choose a path of printable characters"
        )
    return tuple(qmp_socket(guest.qmp, "vhostcomm-qmp"))


def qmp_remark(guest: GuestConfig) -> str:
    """Explain the QMP socket in the arguments, or how to configure one."""
    if guest.qmp:
        return f"the QMP socket {guest.qmp} (qmp of the guest) is for vhostcomm only: paused machines are shown and resumed"
    return with_lines(
        "to show and resume a paused machine, set its QMP socket, which this then prints too:",
        f"[guests.{key(guest.name)}]",
        f'qmp = "/run/qemu/{guest.name}.qmp"',
    )


def with_lines(sentence: str, *lines: str) -> str:
    """Make a remark of a sentence and of lines to copy, which are indented by four blanks and never wrapped."""
    return "\n    ".join((sentence, *lines))


@frozen
class Snippet:
    """Text to paste.

    Args:
        text: the text, without a final newline.
        remarks: what the user has to know, if the text has no comments; each as `with_lines` makes it.
    """

    text: str
    remarks: tuple[str, ...] = ()


@frozen
class Spelling:
    """Which QEMU the arguments are for.

    Args:
        reconnects: how that QEMU spells the reconnect delay of a socket.
        why: which QEMU it is and how it was chosen, for the user.
    """

    reconnects: Reconnect
    why: str

    @classmethod
    def of_version(cls, text: str) -> Spelling:
        """Choose the spelling for a version of QEMU.

        Raises:
            UsageError: the version is malformed, or below 7.2.
        """
        match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})(?:\.[0-9.]+)?", text, re.ASCII)
        version = (int(match[1]), int(match[2])) if match else (0, 0)
        if version < OLDEST:
            raise UsageError(
                f"--qemu-version {text}: expected MAJOR.MINOR, 7.2 or later; `qemu-system-x86_64 --version` prints it"
            )
        return cls(Reconnect.of_version(*version), f"written for QEMU {text}, as --qemu-version says")

    @classmethod
    def unasked(cls) -> Spelling:
        """Choose the spelling where the QEMU is unknown."""
        return cls(
            Reconnect.MILLISECONDS,
            f"written for QEMU 9.2 and later ({Reconnect.MILLISECONDS.value}); for an older one: --qemu-version 7.2",
        )


def channel_of(guest: GuestConfig) -> AnyVchannel:
    """Return QEMU's end of a guest's channel.

    Raises:
        UsageError: QEMU can't connect to it, or the path can't be pasted.
    """
    address: Address = guest.address
    match address:
        case Listen(path) | Connect(path):
            if not str(path).isprintable():
                raise UsageError(
                    f"guest {guest.name}: {str(path)!a} can't be pasted; choose a path of printable characters"
                )
            return Vchannel(str(path), server=isinstance(address, Connect))
        case ListenTcp(host, port):
            if not port:
                raise UsageError(f"guest {guest.name}: {address} is a different port at each start; choose a port")
            return TcpVchannel(_LOOPBACK.get(host, host), port)
        case Activated():
            raise UsageError(f"guest {guest.name}: only the daemon knows the path of {address}; give the path")
        case _ as never:
            assert_never(never)


def changed(config: Config, guest: GuestConfig) -> Iterator[tuple[attrs.Attribute[Any], Any]]:
    """Yield every setting of a guest's daemon that differs from its default, with its value."""
    models: dict[str, Any] = {"host": config.host, "guest": guest.identity, "serve": config.service}
    derived = {
        "cluster_uuid": derived_uuid("h", config.host.serial),
        "uuid": derived_uuid("g", guest.identity.serial),
    }
    for section, model in SECTIONS.items():
        for each in settings(model).values():
            value = getattr(models[section], each.name)
            if value not in (each.default, derived.get(each.name)):
                yield each, value
