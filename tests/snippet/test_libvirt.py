"""The XML is valid by libvirt's schema, and libvirt's AppArmor helper allows its paths."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from attrs import evolve

from tests.needs import need
from tests.serving import run_vhostcomm
from vhostcomm.config.load import load
from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.machine import (
    DATA_SLOTS,
    Accelerator,
    BridgeNet,
    Disk,
    Machine,
    SerialFile,
    TapNet,
    UserNet,
    VhostDisk,
)
from vhostcomm.snippet.domain import domain
from vhostcomm.snippet.libvirt import devices

AA_HELPER = "/usr/lib/libvirt/virt-aa-helper"

AROUND = """\
<domain type="kvm"><name>other</name><memory>1048576</memory><os><type arch="x86_64" machine="pc">hvm</type></os>
<devices>
{}
</devices></domain>"""

MACHINE = Machine(
    name="nas",
    uuid=uuid.UUID("d990d22a-e971-ef5f-a7b3-e6374e496b34"),
    memory=2048,
    cpus=2,
    accelerator=Accelerator.KVM,
    boot=Disk("/vm/boot.img"),
    system=Disk("/vm/system.qcow2", ImageFormat.QCOW2),
    data=(Disk("/dev/vg/data"), Disk('/vm/a <data> & "disk"\'s.img')),
    mac="02:11:32:2b:0f:e6",
)

ADDRESSES = {
    "/run/vhostcomm/nas": "connect",
    "connect:/run/guests/nas": "bind",
    "tcp:127.0.0.1:12345": "connect",
    "/run/a--b/<&\"'>/nas": "connect",
}


def guest_at(sock: str) -> GuestConfig:
    return load(socks=[f"nas={sock}"], environment={}).guests[0]


def validated(folder: Path, text: str) -> ET.Element[Any]:
    """Validate a domain by libvirt's schema; return the parsed domain."""
    need("virt-xml-validate", "xmllint")
    file = folder / "domain.xml"
    file.write_text(text)
    checked = subprocess.run(["virt-xml-validate", file, "domain"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return ET.fromstring(text)


@pytest.mark.parametrize("sock", ADDRESSES)
def test_a_channel_to_paste(tmp_path: Path, sock: str) -> None:
    read = validated(tmp_path, AROUND.format(devices(guest_at(sock)).text))
    channel = read.find("devices/channel")
    source = read.find("devices/channel/source")
    assert channel is not None
    assert source is not None
    assert source.get("mode") == ADDRESSES[sock]
    assert (source.find("reconnect") is not None) == (ADDRESSES[sock] == "connect")
    if not sock.startswith("tcp:"):
        assert source.get("path") == sock.removeprefix("connect:")
    target, place = channel.find("target"), channel.find("address")
    assert target is not None
    assert place is not None
    assert target.attrib == {"type": "virtio", "name": "vchannel"}
    # nr=1 and slot 3 are the genuine host's.
    assert place.attrib == {"type": "virtio-serial", "controller": "0", "bus": "0", "port": "1"}
    controller = read.find("devices/controller[@type='virtio-serial']/address")
    assert controller is not None
    assert controller.get("slot") == "0x03"


def test_the_schema_rejects_an_invalid_domain(tmp_path: Path) -> None:
    wrong = devices(guest_at("/run/nas")).text.replace('timeout="1"', 'timeout="soon"')
    with pytest.raises(AssertionError, match="fails to validate"):
        validated(tmp_path, AROUND.format(wrong))


@pytest.mark.parametrize("sock", ADDRESSES)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"accelerator": Accelerator.TCG, "system": None, "data": (), "mac": None},
        {"net": UserNet()},
        {"net": TapNet("tap0211322b0fe6")},
        {"net": BridgeNet("br0")},
        {"machine_type": "pc-i440fx-7.2", "serial": SerialFile("/var/log/nas")},
        {"machine_type": "q35"},
        {"data": (VhostDisk("naa.119ec5c1-4c72-490c-8e30-1e0551503def"),)},
        {"data": tuple(Disk(f"/vm/{number}") for number in range(DATA_SLOTS))},
    ],
    ids=lambda change: ",".join(change) or "usual",
)
@pytest.mark.slow
def test_a_whole_domain(tmp_path: Path, sock: str, change: dict[str, Any]) -> None:
    machine = evolve(MACHINE, **change)
    read = validated(tmp_path, domain(guest_at(sock), machine).text)
    assert read.findtext("name") == "nas"
    assert read.get("type") == machine.accelerator.value.replace("tcg", "qemu")
    # No two devices have the same address.
    places = [tuple(sorted(each.attrib.items())) for each in read.iterfind("devices//address[@type='pci']")]
    assert len(set(places)) == len(places)


def test_disks_are_where_the_guest_looks(tmp_path: Path) -> None:
    read = validated(tmp_path, domain(guest_at("/run/nas"), MACHINE, network="default").text)
    slots = {
        each.get("index"): place.get("slot")
        for each in read.iterfind("devices/controller[@type='scsi']")
        if (place := each.find("address")) is not None
    }
    found = {}
    for disk in read.iterfind("devices/disk"):
        source, place, order = disk.find("source"), disk.find("address"), disk.find("boot")
        assert source is not None
        assert place is not None
        assert order is not None
        found[slots[place.get("controller")]] = (order.get("order"), *source.attrib.items())
    assert found == {
        "0x0a": ("1", ("file", "/vm/boot.img")),
        "0x0b": ("2", ("file", "/vm/system.qcow2")),
        "0x0c": ("3", ("dev", "/dev/vg/data")),
        "0x0d": ("4", ("file", '/vm/a <data> & "disk"\'s.img')),
    }
    card = read.find("devices/interface")
    assert card is not None
    assert card.get("type") == "network"


def test_a_disk_of_the_kernels_target_is_passed_as_the_genuine_host_does() -> None:
    machine = evolve(MACHINE, data=(VhostDisk("naa.119ec5c1-4c72-490c-8e30-1e0551503def"),))
    read = ET.fromstring(domain(guest_at("/run/nas"), machine).text)
    words = [each.get("value", "") for each in read.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")]
    assert words[0] == "-device"
    assert words[1].startswith("vhost-scsi-pci,id=vdisk_119ec5c1-4c72-490c-8e30-1e0551503def,wwpn=naa.119ec5c1-")
    assert words[1].endswith(",bootindex=3,bus=pci.0,addr=0xc")


@pytest.mark.parametrize("whole", [False, True])
def test_paths_that_apparmor_allows_qemu(tmp_path: Path, whole: bool) -> None:
    """libvirt's helper confirms the remark that libvirt's AppArmor profile contains the socket."""
    need("libvirtd")
    guest = guest_at("/run/vhostcomm/nas")
    machine = evolve(MACHINE, data=())  # the helper rejects quotes in a path
    text = domain(guest, machine).text if whole else AROUND.format(devices(guest).text)
    if not whole:
        text = text.replace("<name>", f"<uuid>{MACHINE.uuid}</uuid><name>")
    done = subprocess.run(
        [AA_HELPER, "--dryrun", "--replace", "--uuid", f"libvirt-{MACHINE.uuid}"],
        input=text, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '  "/run/vhostcomm/nas" rw,\n' in done.stderr
    assert "libvirt's profile of the domain allows this path" in " ".join(text.split())
    assert '"/run/vhostcomm/nas" rw,' in text


def test_libvirt_snippet_explains_access_to_the_socket() -> None:
    printed = run_vhostcomm("snippet", "libvirt", "--sock", "nas=/run/vhostcomm/nas")
    assert (printed.returncode, printed.stderr) == (0, "")
    for words in ('socket_group = "kvm"', "AppArmor", "SELinux", "semanage fcontext", "untried"):
        assert words in printed.stdout
    bound = run_vhostcomm("snippet", "libvirt", "--sock", "nas=connect:/run/guests/nas").stdout
    assert "libvirt creates the socket" in bound
    assert "socket_group" not in bound
