"""The machine to run, as values: its parts, independent of QEMU's syntax.

Constructors reject values that QEMU could parse as further options.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from enum import Enum
from itertools import combinations
from typing import Any, Final

from attrs import Attribute, field, frozen
from attrs.validators import optional

from vhostcomm.errors import QemuError
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.options import DiskOptions

SOCKET_PATH_LIMIT: Final = 107
"""Maximum bytes of a unix socket's path: the kernel's field has 108, including a NUL."""

FIRST_DATA_SLOT: Final = 0xC
DATA_SLOTS: Final = 0x1C - FIRST_DATA_SLOT
"""Data disks have the PCI slots from 0xc up to the random number generator's slot 0x1c."""


def _words(attribute: Attribute[Any]) -> str:
    return attribute.name.replace("_", " ")


def _fits(pattern: str, what: str) -> Callable[[Any, Attribute[str], str], None]:
    expression = re.compile(pattern)

    def check(_: Any, attribute: Attribute[str], value: str) -> None:
        if not expression.fullmatch(value):
            raise QemuError(f"{_words(attribute)} is {value!a}: {what}")

    return check


def _within(low: float, high: float, unit: str = "") -> Callable[[Any, Attribute[Any], float], None]:
    def check(_: Any, attribute: Attribute[Any], value: float) -> None:
        if not low <= value <= high:
            raise QemuError(f"{_words(attribute)} is {value}: expected {low} to {high}{unit}")

    return check


def _path(_: Any, attribute: Attribute[str], value: str) -> None:
    if not value or "\0" in value:
        raise QemuError(f"{_words(attribute)} is {value!a}: not the name of a file")


def _socket_path(instance: Any, attribute: Attribute[str], value: str) -> None:
    _path(instance, attribute, value)
    if (size := len(value.encode(errors="surrogateescape"))) > SOCKET_PATH_LIMIT:
        raise QemuError(
            f"{value}: {size} bytes; a socket's path can have at most {SOCKET_PATH_LIMIT}: choose a shorter one"
        )


def _line(_: Any, attribute: Attribute[str], value: str) -> None:
    if not value.isprintable():
        raise QemuError(f"{_words(attribute)} is {value!a}: expected one line of text without control characters")


_interface = _fits(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "the name of a network interface, 1 to 15 of A-Za-z0-9_.-")


class Accelerator(Enum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@frozen
class Disk:
    """A disk in a file or a block device, with its own virtio-scsi controller.

    Args:
        path: of the image.
        format: of the image: found once, by `disk.image.probe`, and never guessed by QEMU.
        snapshot: what the guest writes goes to a temporary file and is lost at the end.
        options: how it is opened, and shown to the guest.
    """

    path: str = field(validator=_path)
    format: ImageFormat = ImageFormat.RAW
    snapshot: bool = False
    options: DiskOptions = field(factory=DiskOptions)


@frozen
class VhostDisk:
    """A disk of the kernel's SCSI target, as on the genuine host, identified by a name ``naa.…``."""

    wwpn: str = field(validator=_fits(r"naa\.[0-9A-Fa-f-]{1,64}", "naa. and hexadecimal digits or a UUID"))


AnyDisk = Disk | VhostDisk


def _host_address(_: Any, attribute: Attribute[str], value: str) -> None:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        raise QemuError(
            f"{_words(attribute)} is {value!a}: expected an IPv4 address of this host, 0.0.0.0 for all"
        ) from None


@frozen
class Forward:
    """A port of this host that is forwarded to a port of the guest."""

    host_port: int = field(validator=_within(1, 65535))
    guest_port: int = field(validator=_within(1, 65535))
    protocol: str = field(default="tcp", validator=_fits("tcp|udp", "expected tcp or udp"))
    host_address: str = field(default="127.0.0.1", validator=_host_address)


def _distinct(_: Any, __: Attribute[tuple[Forward, ...]], value: tuple[Forward, ...]) -> None:
    for one, other in combinations(value, 2):
        same = (one.protocol, one.host_port) == (other.protocol, other.host_port)
        if same and (one.host_address == other.host_address or "0.0.0.0" in {one.host_address, other.host_address}):  # noqa: S104
            raise QemuError(
                f"--forward: {other.protocol} port {other.host_port} of {other.host_address} leads to the guest's ports "
                f"{one.guest_port} and {other.guest_port}; forward another port"
            )


@frozen
class UserNet:
    """QEMU's own network with NAT; only forwarded ports reach the guest."""

    forwards: tuple[Forward, ...] = field(default=(), validator=_distinct)


@frozen
class PasstNet:
    """A network by the program passt, with the guest's address of `UserNet`; only forwarded ports reach the guest."""

    forwards: tuple[Forward, ...] = field(default=(), validator=_distinct)


@frozen
class TapNet:
    """A tap interface that exists.

    Args:
        interface: its name.
        vhost: have the kernel move the packets; needs /dev/vhost-net. None where `vhostcomm.qemu.host_adaptation` decides.
        queues: of the card, and of the interface, which has to be made with several (``multi_queue``). None as above.
    """

    interface: str = field(validator=_interface)
    vhost: bool | None = None
    queues: int | None = field(default=None, validator=optional(_within(1, 16)))


@frozen
class BridgeNet:
    """A tap interface on a bridge, created by QEMU's helper; /etc/qemu/bridge.conf has to allow the bridge."""

    bridge: str = field(validator=_interface)


Net = UserNet | PasstNet | TapNet | BridgeNet


@frozen
class SerialTerminal:
    """The serial console on QEMU's standard input and output. Ctrl-C still sends a signal."""


@frozen
class SerialFile:
    """The serial console in a file, to which the guest's output is appended."""

    path: str = field(validator=_path)


@frozen
class Vchannel:
    """The socket of the guest's vchannel port.

    Args:
        path: of the unix socket.
        server: QEMU listens, as on the genuine host. Otherwise QEMU connects, and reconnects after one second.
    """

    path: str = field(validator=_socket_path)
    server: bool = False


@frozen
class TcpVchannel:
    """A TCP address to which QEMU connects the guest's vchannel port, and reconnects it after one second."""

    host: str = field(validator=_line)
    port: int = field(validator=_within(1, 65535))


AnyVchannel = Vchannel | TcpVchannel


@frozen
class DirectKernel:
    """A kernel to start directly, without the boot disk's loader."""

    kernel: str = field(validator=_path)
    initrd: str | None = field(default=None, validator=optional(_path))
    append: str = field(default="", validator=_line)


@frozen
class Machine:
    """The description of one virtual machine.

    Args:
        name: for people, for example in the process list.
        uuid: in the machine's SMBIOS.
        memory: MiB.
        cpus: virtual processors.
        accelerator: KVM or TCG.
        machine_type: ``pc``, ``q35`` or a version of them.
        cpu: processor model with its flags; None for the host's with KVM, and for all emulated features with TCG.
        boot: ``synoboot``, at PCI slot 0xa.
        system: ``sda``, at 0xb.
        data: ``sdb`` and on, from 0xc.
        net: the network of the card; None for no card.
        mac: the card's address.
        serial: the console; None to discard its output.
        vchannel: the port's socket; None for no port.
        direct: a kernel to start.
        hugepages: a hugetlbfs directory from which all memory is allocated at the start.
        lock_memory: keep all memory from being swapped out. Needs a high RLIMIT_MEMLOCK.
        no_reboot: a reboot of the guest ends QEMU.
        extra: the user's own arguments, at the end.
    """

    memory: int = field(default=1024, validator=_within(16, 1 << 24, " MiB"))
    cpus: int = field(default=1, validator=_within(1, 1024))
    accelerator: Accelerator = Accelerator.TCG
    machine_type: str = field(default="pc", validator=_fits(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a name of A-Za-z0-9_.-"))
    name: str = field(default="vdsm", validator=_line)
    uuid: uuid.UUID | None = None
    cpu: str | None = field(
        default=None, validator=optional(_fits(r"[A-Za-z0-9][A-Za-z0-9_.,=+:-]*", "a processor model and its flags"))
    )
    boot: AnyDisk | None = None
    system: AnyDisk | None = None
    data: tuple[AnyDisk, ...] = field(default=())
    net: Net | None = None
    mac: str | None = field(
        default=None,
        validator=optional(_fits("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", "six pairs of hexadecimal digits")),
    )
    serial: SerialTerminal | SerialFile | None = None
    vchannel: AnyVchannel | None = None
    direct: DirectKernel | None = None
    hugepages: str | None = field(default=None, validator=optional(_path))
    lock_memory: bool = False
    no_reboot: bool = False
    extra: tuple[str, ...] = field(default=())

    @data.validator
    def _check_data(self, _: Attribute[tuple[AnyDisk, ...]], value: tuple[AnyDisk, ...]) -> None:
        if len(value) > DATA_SLOTS:
            raise QemuError(
                f"{len(value)} data disks: the guest finds disks by PCI slot, and only {DATA_SLOTS} are free"
            )

    @extra.validator
    def _check_extra(self, _: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
        for word in value:
            if "\0" in word:
                raise QemuError(f"QEMU argument {word!a}: it contains a NUL")
            if word in {"-daemonize", "--daemonize"}:
                raise QemuError(f"QEMU argument {word}: QEMU would leave its supervisor; start vhostcomm as a service")
