"""Build QEMU's command line: the machine of the genuine host (QEMU 2.x, 2022), written for QEMU 7.2 and later."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

from vhostcomm.errors import QemuError
from vhostcomm.qemu.argument_format import chardev, options
from vhostcomm.qemu.capabilities import Capabilities, Reconnect
from vhostcomm.qemu.machine import (
    FIRST_DATA_SLOT,
    Accelerator,
    AnyDisk,
    AnyVchannel,
    BridgeNet,
    Disk,
    Machine,
    SerialFile,
    SerialTerminal,
    TcpVchannel,
    Vchannel,
    VhostDisk,
)
from vhostcomm.qemu.net_argv import NETDEV, netdev, queues

NET_SLOT: Final = 0x2
SERIAL_SLOT: Final = 0x3
BALLOON_SLOT: Final = 0x4
BOOT_SLOT: Final = 0xA
SYSTEM_SLOT: Final = 0xB
RNG_SLOT: Final = 0x1C
PANIC_SLOT: Final = 0x1E
"""The genuine machine has no such device, and Linux before 5.14 has no driver for it. This slot is free, also on q35,
whose chipset has 0x1f."""

CHANNEL_DRIVERS: Final = ("virtio-serial-pci", "virtserialport")
"""The devices of the vchannel's port."""

VHOST_SETTINGS: Final = {
    "virtqueue_size": "256",
    "cmd_per_lun": "250",
    "num_queues": "1",
    "max_sectors": "16384",
    "boot_tpgt": "1",
}
"""The genuine host's settings of a disk of the kernel's SCSI target, except set_driverok=off, which only its own QEMU
knows."""

_SANDBOX: Final = {"obsolete": "deny", "elevateprivileges": "deny", "spawn": "deny", "resourcecontrol": "deny"}


def build(machine: Machine, can: Capabilities) -> list[str]:
    """Build the command that runs a machine.

    Raises:
        QemuError: this QEMU lacks something that the machine needs.
    """
    return [*can.program.command, *_Builder(machine, can).arguments()]


def format_command(argv: Sequence[str]) -> str:
    """Format a command for a shell, with each option and its value on its own line."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def vchannel(
    channel: AnyVchannel, reconnects: Reconnect, *, bus: str = "pci.0", slot: int = SERIAL_SLOT
) -> Iterator[str]:
    """Build the arguments for the guest's vchannel: controller, socket, port. Their only definition.

    `bus` and `slot` are the controller's; `reconnects` is how this QEMU spells the reconnect delay.
    """
    yield from ("-device", options("virtio-serial-pci", {"id": "virtio-serial0", "bus": bus, "addr": f"{slot:#x}"}))
    match channel:
        case Vchannel(path=path, server=True):
            socket = {"path": path, "server": "on", "wait": "off"}
        case Vchannel(path=path):
            socket = {"path": path} | _reconnect(reconnects)
        case TcpVchannel(host=host, port=port):
            socket = {"host": host, "port": str(port)} | _reconnect(reconnects)
        case _ as never:
            assert_never(never)
    yield from chardev("socket", "charchannel0", socket)
    # The id is what QMP's VSERPORT_CHANGE names.
    port_properties = {"bus": "virtio-serial0.0", "nr": "1", "chardev": "charchannel0", "id": "channel0"}
    yield from ("-device", options("virtserialport", port_properties | {"name": "vchannel"}))


def qmp_socket(path: str, name: str) -> Iterator[str]:
    """The arguments of a QMP socket that QEMU listens on. `name` is its chardev's id."""
    yield from chardev("socket", name, {"path": path, "server": "on", "wait": "off"})
    yield from ("-qmp", f"chardev:{name}")  # -mon is deprecated since 11.1, its successor is not in 10


def disks_of(machine: Machine) -> Iterator[tuple[int, int, AnyDisk]]:
    """Yield each disk with its PCI slot and its position in the boot order."""
    for order, disk in enumerate((machine.boot, machine.system, *machine.data)):
        if disk:
            yield BOOT_SLOT + order, 1 + order, disk


def vhost_disk(disk: VhostDisk, slot: int, bootindex: int, *, bus: str = "pci.0") -> Iterator[str]:
    """Build the arguments for a disk of the kernel's SCSI target."""
    properties = {"id": f"vdisk_{disk.wwpn.removeprefix('naa.')}", "wwpn": disk.wwpn} | VHOST_SETTINGS
    properties |= {"bootindex": str(bootindex), "bus": bus, "addr": f"{slot:#x}"}
    yield from ("-device", options("vhost-scsi-pci", properties))


def _reconnect(reconnects: Reconnect) -> dict[str, str]:
    return {reconnects.value: "1000" if reconnects is Reconnect.MILLISECONDS else "1"}


class _Builder:
    def __init__(self, machine: Machine, can: Capabilities) -> None:
        self._machine = machine
        self._can = can
        self._bus = self._root_bus()

    def arguments(self) -> Iterator[str]:
        machine = self._machine
        yield from ("-name", options("", {"guest": machine.name}))
        if machine.uuid:
            yield from ("-uuid", str(machine.uuid))
        yield from ("-nodefaults", "-no-user-config", "-display", "none")
        yield from self._board()
        yield from self._clocks()
        yield from ("-boot", "strict=on")
        if machine.no_reboot:
            yield "-no-reboot"
        yield from self._sandbox()
        yield from self._direct_kernel()
        yield from self._devices()
        yield from machine.extra

    def _root_bus(self) -> str:
        kind = self._machine.machine_type
        if kind not in self._can.machines:
            raise QemuError(
                f"{self._can.program.path} has no machine type {kind}; {self._can.program.path} -machine help"
            )
        if kind == "pc" or kind.startswith("pc-i440fx-"):
            return "pci.0"
        if kind == "q35" or kind.startswith("pc-q35-"):
            return "pcie.0"
        raise QemuError(f"machine type {kind}: the guest finds its disks by PCI slot; use pc or q35")

    def _board(self) -> Iterator[str]:
        machine = self._machine
        properties = {"accel": machine.accelerator.value, "usb": "off", "hpet": "off"}
        yield from ("-machine", options(machine.machine_type, properties))
        yield from ("-cpu", machine.cpu or ("host" if machine.accelerator is Accelerator.KVM else "max"))
        yield from ("-smp", f"{machine.cpus},sockets=1,cores={machine.cpus},threads=1")
        yield from ("-m", str(machine.memory))
        if machine.hugepages:
            yield from ("-mem-path", machine.hugepages, "-mem-prealloc")
        if machine.lock_memory:
            if not self._can.memory_lock:
                raise QemuError(f"{self._can.program.path} can't lock memory; omit that, or use another QEMU")
            yield from ("-overcommit", "mem-lock=on")

    def _clocks(self) -> Iterator[str]:
        # The genuine host's settings. QEMU silently ignores those that TCG has no use for.
        yield from ("-rtc", "base=utc,clock=vm,driftfix=slew")
        yield from ("-global", "kvm-pit.lost_tick_policy=discard")

    def _sandbox(self) -> Iterator[str]:
        if not self._can.sandbox:
            return
        denied = dict(_SANDBOX)
        if isinstance(self._machine.net, BridgeNet):
            del denied["spawn"]  # QEMU has to start its bridge helper, after the sandbox is closed
        yield from ("-sandbox", options("on", denied))

    def _direct_kernel(self) -> Iterator[str]:
        if direct := self._machine.direct:
            yield from ("-kernel", direct.kernel)
            if direct.initrd:
                yield from ("-initrd", direct.initrd)
            if direct.append:
                yield from ("-append", direct.append)

    def _devices(self) -> Iterator[str]:
        # The genuine machine's, if the machine type and QEMU have it.
        if self._bus == "pci.0" and "piix3-usb-uhci" in self._can.devices:
            yield from self._device("piix3-usb-uhci", {"id": "usb", "bus": self._bus, "addr": "0x1.0x2"})
        yield from self._network()
        yield from self._vchannel()
        yield from self._pci("virtio-balloon-pci", BALLOON_SLOT, {"id": "balloon0"} | self._free_pages())
        yield from ("-object", "rng-random,id=objrng0,filename=/dev/urandom")
        yield from self._pci("virtio-rng-pci", RNG_SLOT, {"id": "rng0", "rng": "objrng0"})
        yield from self._pci("pvpanic-pci", PANIC_SLOT, {"id": "panic0"})
        yield from self._console()
        machine = self._machine
        names = {BOOT_SLOT: "synoboot", SYSTEM_SLOT: "synosys"}
        for slot, bootindex, disk in disks_of(machine):
            yield from self._disk(disk, slot, names.get(slot, f"userdata{slot - FIRST_DATA_SLOT}"), bootindex)

    def _free_pages(self) -> dict[str, str]:
        # Pages of a hugetlbfs, and locked ones, are to stay.
        pinned = self._machine.hugepages or self._machine.lock_memory
        return {} if pinned else {"free-page-reporting": "on"}

    def _network(self) -> Iterator[str]:
        net = self._machine.net
        if net is None:
            return
        yield from netdev(net, self._machine.name)
        properties = {"id": "net0", "netdev": NETDEV} | queues(net)
        if self._machine.mac:
            properties["mac"] = self._machine.mac
        # Strict boot excludes the network. Without a ROM for it, QEMU needs no ipxe package.
        yield from self._pci("virtio-net-pci", NET_SLOT, properties | {"romfile": ""})

    def _vchannel(self) -> Iterator[str]:
        channel = self._machine.vchannel
        if channel is None:
            yield from self._pci("virtio-serial-pci", SERIAL_SLOT, {"id": "virtio-serial0"})
            return
        for driver in CHANNEL_DRIVERS:
            self._check(driver)
        reconnects = self._can.reconnects
        if reconnects is None and not (isinstance(channel, Vchannel) and channel.server):
            raise QemuError(f"{self._can.program.path} can't reconnect a socket: use QEMU 7.2 or later")
        yield from vchannel(channel, reconnects or Reconnect.SECONDS, bus=self._bus)

    def _console(self) -> Iterator[str]:
        match self._machine.serial:
            case None:  # still a port, for a kernel with console=ttyS0
                yield from chardev("null", "charserial0", {})
            case SerialTerminal():
                yield from chardev("stdio", "charserial0", {"signal": "on"})
            case SerialFile(path=path):
                yield from chardev("file", "charserial0", {"path": path, "append": "on"})
            case _ as never:
                assert_never(never)
        yield from self._device("isa-serial", {"chardev": "charserial0", "id": "serial0"})

    def _disk(self, disk: AnyDisk, slot: int, name: str, bootindex: int) -> Iterator[str]:
        if not isinstance(disk, Disk):
            self._check("vhost-scsi-pci")
            yield from vhost_disk(disk, slot, bootindex, bus=self._bus)
            return
        how = disk.options
        controller = {"id": f"hw-{name}"}
        if how.iothread:
            yield from ("-object", f"iothread,id=io-{name}")
            controller["iothread"] = f"io-{name}"
        yield from self._pci("virtio-scsi-pci", slot, controller)
        # QEMU never parses an absolute path, or one with ./, as a protocol such as nbd:.
        path = disk.path if disk.path.startswith("/") else f"./{disk.path}"
        drive = {"file": path, "if": "none", "id": f"drive-{name}", "format": disk.format.value}
        drive |= {"cache": how.cache.value, "aio": how.effective_aio.value}
        drive |= {"discard": "unmap" if how.discard else "ignore", "detect-zeroes": how.detect_zeroes.value}
        yield from ("-drive", options("", drive | ({"snapshot": "on"} if disk.snapshot else {})))
        seen = {"bus": f"hw-{name}.0", "channel": "0", "scsi-id": "0", "lun": "0", "drive": f"drive-{name}", "id": name}
        seen |= {"bootindex": str(bootindex)} | ({"rotation_rate": str(how.rotation_rate)} if how.rotation_rate else {})
        yield from self._device("scsi-hd", seen | ({"serial": how.serial} if how.serial else {}))

    def _pci(self, driver: str, slot: int, properties: Mapping[str, str]) -> Iterator[str]:
        yield from self._device(driver, dict(properties) | {"bus": self._bus, "addr": f"{slot:#x}"})

    def _device(self, driver: str, properties: Mapping[str, str]) -> Iterator[str]:
        self._check(driver)
        yield from ("-device", options(driver, properties))

    def _check(self, driver: str) -> None:
        if driver not in self._can.devices:
            raise QemuError(f"{self._can.program.path} has no device {driver}; use QEMU 7.2 or later for x86_64")
