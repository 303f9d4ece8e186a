"""A whole libvirt domain like that of a genuine host: the machine that the launcher builds, as libvirt describes it.

It omits the genuine domain's locked memory. Huge pages are included on request, because they need a configured host.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from typing import Final, assert_never
from xml.etree import ElementTree as ET

from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.argv import BALLOON_SLOT, NET_SLOT, RNG_SLOT, SERIAL_SLOT, disks_of, vhost_disk
from vhostcomm.qemu.machine import (
    Accelerator,
    BridgeNet,
    Disk,
    Machine,
    PasstNet,
    SerialFile,
    TapNet,
    UserNet,
    VhostDisk,
)
from vhostcomm.snippet import libvirt
from vhostcomm.snippet.parts import PORT, Snippet, channel_of, qmp_of

_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"


def domain(
    guest: GuestConfig, machine: Machine, *, emulator: str = "", network: str = "", held: bool = False
) -> Snippet:
    """Make the domain.

    Args:
        guest: the guest to run.
        machine: its hardware, except the vchannel, which has the guest's address.
        emulator: path of QEMU's executable; by default, libvirt chooses one.
        network: the libvirt network of the card, instead of the machine's.
        held: whether a systemd socket unit owns the socket.

    Raises:
        UsageError: QEMU can't connect to the guest's address.
    """
    ET.register_namespace("qemu", _QEMU)
    root = ET.Element("domain", type="kvm" if machine.accelerator is Accelerator.KVM else "qemu")
    root.extend(libvirt.remarks(guest, channel_of(guest), held=held))
    if not network and machine.net is None:
        root.append(libvirt.comment(*textwrap.wrap(f"No network card is at 0x2: {PORT}.", 118)))
    _leaf(root, "name", machine.name)
    if machine.uuid:
        _leaf(root, "uuid", str(machine.uuid))
    _leaf(root, "title", f"Virtual DSM: {guest.name}")
    _leaf(root, "memory", str(machine.memory), unit="MiB")
    if machine.hugepages:
        ET.SubElement(ET.SubElement(root, "memoryBacking"), "hugepages")
    _leaf(root, "vcpu", str(machine.cpus), placement="static")
    threads = [disk for _, _, disk in disks_of(machine) if isinstance(disk, Disk) and disk.options.iothread]
    if threads:
        _leaf(root, "iothreads", str(len(threads)))
    _leaf(ET.SubElement(root, "os"), "type", "hvm", arch="x86_64", machine=machine.machine_type)
    features = ET.SubElement(root, "features")
    for each in ("acpi", "apic", "pae"):
        ET.SubElement(features, each)
    _cpu(root, machine)
    clock = ET.SubElement(root, "clock", offset="utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup", track="guest")
    # The genuine domain has "delay", for which its libvirt passed "discard" to QEMU. Today's libvirt distinguishes.
    ET.SubElement(clock, "timer", name="pit", tickpolicy="discard")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    for event, what in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _leaf(root, f"on_{event}", what)
    devices = ET.SubElement(root, "devices")
    if emulator:
        _leaf(devices, "emulator", emulator)
    devices.extend(_devices(guest, machine, network))
    bus = "pci.0" if _is_i440fx(machine) else "pcie.0"
    # libvirt's own element accepts only 16 digits after naa., and the genuine host has a UUID there.
    arguments = [
        word
        for slot, order, disk in disks_of(machine)
        if isinstance(disk, VhostDisk)
        for word in vhost_disk(disk, slot, order, bus=bus)
    ]
    arguments += qmp_of(guest)
    if arguments:
        commandline = ET.SubElement(root, f"{{{_QEMU}}}commandline")
        for word in arguments:
            ET.SubElement(commandline, f"{{{_QEMU}}}arg", value=word)
    return Snippet(libvirt.text(root))


def _devices(guest: GuestConfig, machine: Machine, network: str) -> Iterator[ET.Element]:
    if _is_i440fx(machine):
        yield libvirt.controller("usb", 0, 0x1, function=0x2, model="piix3-uhci")
    else:
        yield ET.Element("controller", type="usb", index="0", model="none")
    yield libvirt.controller("virtio-serial", 0, SERIAL_SLOT)
    threads = 0
    for index, (slot, order, disk) in enumerate(disks_of(machine)):
        if isinstance(disk, Disk):
            controller = libvirt.controller("scsi", index, slot, model="virtio-scsi")
            if disk.options.iothread:
                threads += 1
                controller.insert(0, ET.Element("driver", iothread=str(threads)))
            yield controller
            yield _disk(disk, index, order)
    if (card := _card(machine, network)) is not None:
        yield card
    yield _console(machine)
    yield libvirt.port(channel_of(guest))
    balloon = ET.Element("memballoon", model="virtio", freePageReporting="off" if machine.hugepages else "on")
    balloon.append(libvirt.pci(BALLOON_SLOT))
    yield balloon
    rng = ET.Element("rng", model="virtio")
    _leaf(rng, "backend", "/dev/urandom", model="random")
    rng.append(libvirt.pci(RNG_SLOT))
    yield rng


def _cpu(root: ET.Element, machine: Machine) -> None:
    """Add the processor: a mode of libvirt's, or a model with its features."""
    default = "host" if machine.accelerator is Accelerator.KVM else "max"
    model, *flags = (machine.cpu or default).split(",")
    if mode := _CPU_MODES.get(model):
        cpu = ET.SubElement(root, "cpu", mode=mode)
    else:
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact")
        _leaf(cpu, "model", model)
    for flag in flags:
        name, _, value = flag.partition("=")
        off = flag.startswith("-") or value == "off"
        ET.SubElement(cpu, "feature", policy="disable" if off else "require", name=name.lstrip("+-"))
    ET.SubElement(cpu, "topology", sockets="1", cores=str(machine.cpus), threads="1")


_CPU_MODES: Final = {"host": "host-passthrough", "max": "maximum"}
"""libvirt's modes for two of QEMU's models."""


def _is_i440fx(machine: Machine) -> bool:
    return machine.machine_type == "pc" or machine.machine_type.startswith("pc-i440fx-")


def _disk(disk: Disk, index: int, order: int) -> ET.Element:
    block = disk.path.startswith("/dev/")
    made = ET.Element("disk", type="block" if block else "file", device="disk")
    how = disk.options
    ET.SubElement(
        made, "driver", name="qemu", type=disk.format.value, cache=how.cache.value, io=how.effective_aio.value,
        discard="unmap" if how.discard else "ignore", detect_zeroes=how.detect_zeroes.value,
    )  # fmt: skip
    path = os.path.abspath(disk.path)  # noqa: PTH100 - libvirt opens this path
    ET.SubElement(made, "source", {"dev" if block else "file": path})
    letter = chr(ord("a") + index)  # there are only eighteen slots
    rotation = {"rotation_rate": str(how.rotation_rate)} if how.rotation_rate else {}
    ET.SubElement(made, "target", {"dev": f"sd{letter}", "bus": "scsi"} | rotation)
    if how.serial:
        _leaf(made, "serial", how.serial)
    ET.SubElement(made, "boot", order=str(order))
    ET.SubElement(made, "address", type="drive", controller=str(index), bus="0", target="0", unit="0")
    return made


def _card(machine: Machine, network: str) -> ET.Element | None:
    if network:
        card = ET.Element("interface", type="network")
        ET.SubElement(card, "source", network=network)
    else:
        match machine.net:
            case None:
                return None
            case UserNet():
                card = ET.Element("interface", type="user")
            case PasstNet(forwards=forwards):
                card = ET.Element("interface", type="user")
                ET.SubElement(card, "backend", type="passt")
                for forward in forwards:
                    rule = ET.SubElement(card, "portForward", proto=forward.protocol, address=forward.host_address)
                    ET.SubElement(rule, "range", start=str(forward.host_port), to=str(forward.guest_port))
            case TapNet(interface=interface):
                card = ET.Element("interface", type="ethernet")
                ET.SubElement(card, "target", dev=interface, managed="no")
            case BridgeNet(bridge=bridge):
                card = ET.Element("interface", type="bridge")
                ET.SubElement(card, "source", bridge=bridge)
            case _ as never:
                assert_never(never)
    if machine.mac:
        card.insert(0, ET.Element("mac", address=machine.mac))
    ET.SubElement(card, "model", type="virtio")
    if isinstance(machine.net, TapNet) and not network and machine.net.queues and machine.net.queues > 1:
        ET.SubElement(card, "driver", queues=str(machine.net.queues))
    ET.SubElement(card, "rom", enabled="no")
    card.append(libvirt.pci(NET_SLOT))
    return card


def _console(machine: Machine) -> ET.Element:
    serial = ET.Element("serial", type="pty")
    if isinstance(machine.serial, SerialFile):
        serial.set("type", "file")
        path = os.path.abspath(machine.serial.path)  # noqa: PTH100 - as above
        ET.SubElement(serial, "source", path=path, append="on")
    target = ET.SubElement(serial, "target", type="isa-serial", port="0")
    ET.SubElement(target, "model", name="isa-serial")
    return serial


def _leaf(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
