"""libvirt's XML for the vchannel: a ``<channel>`` and its controller, to paste into a domain's ``<devices>``."""

from __future__ import annotations

import shlex
import textwrap
from typing import Any, Final, assert_never
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.argv import SERIAL_SLOT
from vhostcomm.qemu.machine import AnyVchannel, TcpVchannel, Vchannel
from vhostcomm.snippet.parts import PORT, Snippet, channel_of, qmp_of


def devices(guest: GuestConfig, *, held: bool = False) -> Snippet:
    """Make the channel and its controller.

    Args:
        guest: the guest to connect.
        held: whether a systemd socket unit owns the socket.

    Raises:
        UsageError: QEMU can't connect to the guest's address.
    """
    channel = channel_of(guest)
    parts: list[ET.Element[Any]] = [
        *remarks(guest, channel, held=held),
        *_qmp(guest),
        comment("Omit the controller if the domain already has one of this type and index."),
        comment(*textwrap.wrap(f"{PORT[0].upper()}{PORT[1:]}.", 118)),
        controller("virtio-serial", 0, SERIAL_SLOT),
        port(channel),
    ]
    return Snippet("\n".join(map(text, parts)))


def _qmp(guest: GuestConfig) -> list[ET.Element[Any]]:
    if not (words := qmp_of(guest)):
        return []
    lines = [f"    <qemu:arg value={quoteattr(word)}/>" for word in words]
    return [
        comment(
            "The QMP socket, for vhostcomm only. Paste it after </devices>. It needs the namespace in <domain>:",
            "  <domain … xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
            "  <qemu:commandline>", *lines, "  </qemu:commandline>",
        )
    ]  # fmt: skip


def controller(kind: str, index: int, slot: int, function: int = 0, **more: str) -> ET.Element:
    """Make a controller in a PCI slot."""
    made = ET.Element("controller", {"type": kind, "index": str(index)} | more)
    made.append(pci(slot, function))
    return made


def port(channel: AnyVchannel) -> ET.Element:
    """Make the channel. Its ``mode`` is libvirt's side: connect if vhostcomm listens, bind if vhostcomm connects."""
    match channel:
        case Vchannel(path=path, server=server):
            made = ET.Element("channel", type="unix")
            source = ET.SubElement(made, "source", mode="bind" if server else "connect", path=path)
        case TcpVchannel(host=host, port=number):
            made = ET.Element("channel", type="tcp")
            source = ET.SubElement(made, "source", mode="connect", host=host, service=str(number))
            ET.SubElement(made, "protocol", type="raw")
        case _ as never:
            assert_never(never)
    if source.get("mode") == "connect":
        ET.SubElement(source, "reconnect", enabled="yes", timeout="1")
    ET.SubElement(made, "target", type="virtio", name="vchannel")
    ET.SubElement(made, "address", type="virtio-serial", controller="0", bus="0", port="1")
    return made


def pci(slot: int, function: int = 0) -> ET.Element:
    """Make an address on the root bus."""
    place = {"domain": "0x0000", "bus": "0x00", "slot": f"{slot:#04x}", "function": f"{function:#x}"}
    return ET.Element("address", {"type": "pci"} | place)


def remarks(guest: GuestConfig, channel: AnyVchannel, *, held: bool = False) -> list[ET.Element[Any]]:
    """Make comments with what the reader has to know."""
    match channel:
        case TcpVchannel():
            lines = ["The daemon listens on a TCP port, which every user of this machine can connect to. A unix",
                     "socket has a mode that keeps other users out."]  # fmt: skip
        case Vchannel(server=True, path=path):
            lines = [_BIND, *_SELINUX.format(quoted=shlex.quote(path)).splitlines()]
        case Vchannel(path=path):
            lines = [
                *(_HELD if held else _CONNECT.format(folder=path.rpartition("/")[0] or "/")).splitlines(),
                *_APPARMOR.format(path=path).splitlines(),
                *_SELINUX.format(quoted=shlex.quote(path)).splitlines(),
            ]
        case _ as never:
            assert_never(never)
    return [comment(f"The vchannel of the guest {guest.name}, for <devices>."), comment(*lines)]


_CONNECT: Final = """\
QEMU connects to the daemon's socket. libvirt runs QEMU as the user libvirt-qemu, in the group kvm, on Debian and
Ubuntu, and as qemu elsewhere. If the daemon runs as root, give that group access in the [serve] section:
    socket_mode = "0660"
    socket_group = "kvm"
If systemd runs the daemon as another user, set that mode, and Group=kvm in its unit. The group needs access to
{folder} too; vhostcomm gives it access to a runtime directory that it creates.
Start the daemon before the domain: libvirt as root checks that the socket exists. The daemon may be restarted later."""

_HELD: Final = """\
systemd owns the socket that QEMU connects to. libvirt runs QEMU as the user libvirt-qemu, in the group kvm, on
Debian and Ubuntu, and as qemu elsewhere. Give that group access in a drop-in of the socket unit:
    [Socket]
    SocketMode=0660
    SocketGroup=kvm"""

_BIND: Final = """\
libvirt creates the socket, in an existing directory. The daemon connects to it, as root or as a user with access to the
socket."""

_APPARMOR: Final = """\
AppArmor (Debian, Ubuntu): libvirt's profile of the domain allows this path (tried with libvirt 9.0 on Debian 12). If the
kernel log still shows a denial, add this line to /etc/apparmor.d/local/abstractions/libvirt-qemu:
    "{path}" rw,"""

_SELINUX: Final = """\
SELinux (Fedora, RHEL; untried): if QEMU is denied the socket,
    semanage fcontext -a -t svirt_image_t {quoted} && restorecon -v {quoted}"""


def text(element: ET.Element[Any]) -> str:
    """Format an element as indented XML."""
    ET.indent(element)
    return ET.tostring(element, encoding="unicode")


def comment(*lines: str) -> ET.Element[Any]:
    # XML comments can't contain two dashes, but a path can.
    words = "\n".join(lines).replace("--", "- -")
    return ET.Comment(f" {words} " if "\n" not in words else "\n" + textwrap.indent(words, "  ") + "\n")
