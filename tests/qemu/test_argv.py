from __future__ import annotations

import subprocess
import uuid
from typing import Any

import pytest
from attrs import evolve

from tests.qemu.capability_sets import BARE, QEMU_7_2, QEMU_10_0, QEMU_11_1
from vhostcomm.errors import QemuError
from vhostcomm.qemu.argv import build, format_command
from vhostcomm.qemu.capabilities import Capabilities, Program
from vhostcomm.qemu.disk.image import ImageFormat
from vhostcomm.qemu.disk.options import parse
from vhostcomm.qemu.machine import (
    Accelerator,
    BridgeNet,
    DirectKernel,
    Disk,
    Forward,
    Machine,
    PasstNet,
    SerialFile,
    SerialTerminal,
    TapNet,
    UserNet,
    Vchannel,
    VhostDisk,
)

UUID = uuid.UUID("ba13a19a-c0c1-4fef-9346-915ed3b98341")

USUAL = Machine(
    name="dsm",
    uuid=UUID,
    memory=2048,
    cpus=2,
    accelerator=Accelerator.KVM,
    boot=Disk("/vm/boot.img"),
    system=Disk("/vm/system.qcow2", ImageFormat.QCOW2),
    data=(Disk("/vm/data 1.img"), Disk("/vm/data2.img", snapshot=True)),
    net=UserNet((Forward(5000, 5000), Forward(5022, 22, host_address="0.0.0.0"), Forward(53, 53, "udp"))),
    mac="02:11:32:2b:0f:e6",
    serial=SerialTerminal(),
    vchannel=Vchannel("/run/vhostcomm/dsm"),
)

USUAL_IN_7_2 = r"""qemu-system-x86_64 \
    -name guest=dsm \
    -uuid ba13a19a-c0c1-4fef-9346-915ed3b98341 \
    -nodefaults \
    -no-user-config \
    -display none \
    -machine pc,accel=kvm,usb=off,hpet=off \
    -cpu host \
    -smp 2,sockets=1,cores=2,threads=1 \
    -m 2048 \
    -rtc base=utc,clock=vm,driftfix=slew \
    -global kvm-pit.lost_tick_policy=discard \
    -boot strict=on \
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
    -device piix3-usb-uhci,id=usb,bus=pci.0,addr=0x1.0x2 \
    -netdev user,id=hostnet0,hostfwd=tcp:127.0.0.1:5000-:5000,hostfwd=tcp:0.0.0.0:5022-:22,hostfwd=udp:127.0.0.1:53-:53 \
    -device virtio-net-pci,id=net0,netdev=hostnet0,mac=02:11:32:2b:0f:e6,romfile=,bus=pci.0,addr=0x2 \
    -device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x3 \
    -chardev socket,id=charchannel0,path=/run/vhostcomm/dsm,reconnect=1 \
    -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel \
    -device virtio-balloon-pci,id=balloon0,free-page-reporting=on,bus=pci.0,addr=0x4 \
    -object rng-random,id=objrng0,filename=/dev/urandom \
    -device virtio-rng-pci,id=rng0,rng=objrng0,bus=pci.0,addr=0x1c \
    -device pvpanic-pci,id=panic0,bus=pci.0,addr=0x1e \
    -chardev stdio,id=charserial0,signal=on \
    -device isa-serial,chardev=charserial0,id=serial0 \
    -object iothread,id=io-synoboot \
    -device virtio-scsi-pci,id=hw-synoboot,iothread=io-synoboot,bus=pci.0,addr=0xa \
    -drive file=/vm/boot.img,if=none,id=drive-synoboot,format=raw,cache=none,aio=native,discard=unmap,detect-zeroes=on \
    -device scsi-hd,bus=hw-synoboot.0,channel=0,scsi-id=0,lun=0,drive=drive-synoboot,id=synoboot,bootindex=1,rotation_rate=1 \
    -object iothread,id=io-synosys \
    -device virtio-scsi-pci,id=hw-synosys,iothread=io-synosys,bus=pci.0,addr=0xb \
    -drive file=/vm/system.qcow2,if=none,id=drive-synosys,format=qcow2,cache=none,aio=native,discard=unmap,detect-zeroes=on \
    -device scsi-hd,bus=hw-synosys.0,channel=0,scsi-id=0,lun=0,drive=drive-synosys,id=synosys,bootindex=2,rotation_rate=1 \
    -object iothread,id=io-userdata0 \
    -device virtio-scsi-pci,id=hw-userdata0,iothread=io-userdata0,bus=pci.0,addr=0xc \
    -drive 'file=/vm/data 1.img,if=none,id=drive-userdata0,format=raw,cache=none,aio=native,discard=unmap,detect-zeroes=on' \
    -device scsi-hd,bus=hw-userdata0.0,channel=0,scsi-id=0,lun=0,drive=drive-userdata0,id=userdata0,bootindex=3,rotation_rate=1 \
    -object iothread,id=io-userdata1 \
    -device virtio-scsi-pci,id=hw-userdata1,iothread=io-userdata1,bus=pci.0,addr=0xd \
    -drive file=/vm/data2.img,if=none,id=drive-userdata1,format=raw,cache=none,aio=native,discard=unmap,detect-zeroes=on,snapshot=on \
    -device scsi-hd,bus=hw-userdata1.0,channel=0,scsi-id=0,lun=0,drive=drive-userdata1,id=userdata1,bootindex=4,rotation_rate=1"""

GENUINE = Machine(
    name=str(UUID),
    uuid=UUID,
    accelerator=Accelerator.KVM,
    machine_type="pc-i440fx-2.2",
    boot=VhostDisk("naa.119ec5c1-4c72-490c-8e30-1e0551503def"),
    system=VhostDisk("naa.b447b54f-6941-4c10-b5be-01f23b872556"),
    data=(VhostDisk("naa.0a4aecb5-61c6-4f27-a9f6-46fdbacc45c1"),),
    net=TapNet("tap0211322b0fe6", vhost=True),
    mac="02:11:32:2b:0f:e6",
    vchannel=Vchannel(f"/tmp/synohostvmcomm/guest_interface/{UUID}", server=True),
    hugepages="/dev/virtualization/libvirt/qemu",
    lock_memory=True,
)

GENUINE_IN_7_2 = rf"""qemu-system-x86_64 \
    -name guest={UUID} \
    -uuid {UUID} \
    -nodefaults \
    -no-user-config \
    -display none \
    -machine pc-i440fx-2.2,accel=kvm,usb=off,hpet=off \
    -cpu host \
    -smp 1,sockets=1,cores=1,threads=1 \
    -m 1024 \
    -mem-path /dev/virtualization/libvirt/qemu \
    -mem-prealloc \
    -overcommit mem-lock=on \
    -rtc base=utc,clock=vm,driftfix=slew \
    -global kvm-pit.lost_tick_policy=discard \
    -boot strict=on \
    -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
    -device piix3-usb-uhci,id=usb,bus=pci.0,addr=0x1.0x2 \
    -netdev tap,id=hostnet0,ifname=tap0211322b0fe6,script=no,downscript=no,vhost=on \
    -device virtio-net-pci,id=net0,netdev=hostnet0,mac=02:11:32:2b:0f:e6,romfile=,bus=pci.0,addr=0x2 \
    -device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x3 \
    -chardev socket,id=charchannel0,path=/tmp/synohostvmcomm/guest_interface/{UUID},server=on,wait=off \
    -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel \
    -device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x4 \
    -object rng-random,id=objrng0,filename=/dev/urandom \
    -device virtio-rng-pci,id=rng0,rng=objrng0,bus=pci.0,addr=0x1c \
    -device pvpanic-pci,id=panic0,bus=pci.0,addr=0x1e \
    -chardev null,id=charserial0 \
    -device isa-serial,chardev=charserial0,id=serial0 \
    -device vhost-scsi-pci,id=vdisk_119ec5c1-4c72-490c-8e30-1e0551503def,wwpn=naa.119ec5c1-4c72-490c-8e30-1e0551503def,virtqueue_size=256,cmd_per_lun=250,num_queues=1,max_sectors=16384,boot_tpgt=1,bootindex=1,bus=pci.0,addr=0xa \
    -device vhost-scsi-pci,id=vdisk_b447b54f-6941-4c10-b5be-01f23b872556,wwpn=naa.b447b54f-6941-4c10-b5be-01f23b872556,virtqueue_size=256,cmd_per_lun=250,num_queues=1,max_sectors=16384,boot_tpgt=1,bootindex=2,bus=pci.0,addr=0xb \
    -device vhost-scsi-pci,id=vdisk_0a4aecb5-61c6-4f27-a9f6-46fdbacc45c1,wwpn=naa.0a4aecb5-61c6-4f27-a9f6-46fdbacc45c1,virtqueue_size=256,cmd_per_lun=250,num_queues=1,max_sectors=16384,boot_tpgt=1,bootindex=3,bus=pci.0,addr=0xc"""


@pytest.mark.parametrize(
    ("machine", "can", "command"),
    [(USUAL, QEMU_7_2, USUAL_IN_7_2), (GENUINE, QEMU_7_2, GENUINE_IN_7_2)],
    ids=["usual", "genuine"],
)
def test_whole_command_of_a_machine(machine: Machine, can: Capabilities, command: str) -> None:
    assert format_command(build(machine, can)) == command


def changes(machine: Machine, can: Capabilities) -> set[str]:
    """The lines that the usual command lacks, and after a minus the usual lines that are missing."""
    usual = set(USUAL_IN_7_2.replace(" \\", "").split("\n    "))
    made = set(format_command(build(machine, can)).replace(" \\", "").split("\n    "))
    return (made - usual) | {f"-{line}" for line in usual - made}


BALLOON = "-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x4"
SOCKET = "-chardev socket,id=charchannel0,path=/run/vhostcomm/dsm"


def test_spelling_follows_the_version_of_qemu() -> None:
    reconnects = {f"-{SOCKET},reconnect=1", f"{SOCKET},reconnect-ms=1000"}
    assert changes(USUAL, QEMU_10_0) == reconnects
    assert changes(USUAL, QEMU_11_1) == reconnects


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"accelerator": Accelerator.TCG}, {"-machine pc,accel=tcg,usb=off,hpet=off", "-cpu max"}),
        ({"cpu": "host,-svm"}, {"-cpu host,-svm"}),
        ({"serial": None}, {"-chardev null,id=charserial0"}),
        ({"serial": SerialFile("/log/a,b")}, {"-chardev file,id=charserial0,path=/log/a,,b,append=on"}),
        ({"vchannel": Vchannel("/s", server=True)}, {"-chardev socket,id=charchannel0,path=/s,server=on,wait=off"}),
        ({"vchannel": Vchannel("/s")}, {"-chardev socket,id=charchannel0,path=/s,reconnect=1"}),
        ({"no_reboot": True}, {"-no-reboot"}),
        ({"lock_memory": True}, {"-overcommit mem-lock=on", BALLOON}),
        ({"hugepages": "/dev/huge,x"}, {"-mem-path /dev/huge,x", "-mem-prealloc", BALLOON}),
        ({"name": "a,b=c"}, {"-name guest=a,,b=c"}),
        ({"net": TapNet("tap0")}, {"-netdev tap,id=hostnet0,ifname=tap0,script=no,downscript=no"}),
        ({"net": TapNet("tap0", vhost=True, queues=4)},
         {"-netdev tap,id=hostnet0,ifname=tap0,script=no,downscript=no,vhost=on,queues=4",
          "-device virtio-net-pci,id=net0,netdev=hostnet0,mq=on,vectors=10,mac=02:11:32:2b:0f:e6,romfile=,bus=pci.0,addr=0x2"}),
        ({"boot": Disk("/vm/boot.img", options=parse("cache=unsafe,discard=off,detect-zeroes=off,rotation-rate=0,serial=A1,iothread=off"))},
         {"-device virtio-scsi-pci,id=hw-synoboot,bus=pci.0,addr=0xa",
          "-drive file=/vm/boot.img,if=none,id=drive-synoboot,format=raw,cache=unsafe,aio=threads,discard=ignore,detect-zeroes=off",
          "-device scsi-hd,bus=hw-synoboot.0,channel=0,scsi-id=0,lun=0,drive=drive-synoboot,id=synoboot,bootindex=1,serial=A1"}),
        ({"extra": ("-device", "x y")}, {"-device 'x y'"}),
        ({"direct": DirectKernel("/k,1", "/i", "console=ttyS0 a,b")},
         {"-kernel /k,1", "-initrd /i", "-append 'console=ttyS0 a,b'"}),
    ],
)  # fmt: skip
def test_arguments_change_with_the_machine(change: dict[str, Any], differences: set[str]) -> None:
    found = changes(evolve(USUAL, **change), QEMU_7_2)
    assert {line for line in found if not line.startswith("--")} == differences


def test_passt_listens_at_a_path_in_the_command_to_paste() -> None:
    stream = "stream,id=hostnet0,server=off,addr.type=unix,addr.path=/tmp/vhostcomm-test-1.passt"
    assert f"-netdev {stream}" in changes(evolve(USUAL, net=PasstNet(), name="test 1"), QEMU_7_2)


def test_sandbox_allows_the_helper_of_a_bridge() -> None:
    sandbox = "-sandbox on,obsolete=deny,elevateprivileges=deny,"
    assert changes(evolve(USUAL, net=BridgeNet("br0")), QEMU_7_2) >= {
        "-netdev bridge,id=hostnet0,br=br0",
        f"{sandbox}resourcecontrol=deny",
        f"-{sandbox}spawn=deny,resourcecontrol=deny",
    }


def test_without_a_sandbox() -> None:
    assert "-sandbox" not in build(USUAL, evolve(QEMU_7_2, sandbox=False))


def test_without_a_network_card() -> None:
    assert not [word for word in build(evolve(USUAL, net=None), QEMU_7_2) if "net" in word]


def test_disks_keep_their_slots_when_one_is_missing() -> None:
    argv = build(evolve(USUAL, boot=None, system=None), QEMU_7_2)
    assert "virtio-scsi-pci,id=hw-userdata0,iothread=io-userdata0,bus=pci.0,addr=0xc" in argv
    assert any(word.endswith("id=userdata0,bootindex=3,rotation_rate=1") for word in argv)


def test_as_many_data_disks_as_there_are_slots() -> None:
    argv = build(evolve(USUAL, data=tuple(Disk(f"/d{n}") for n in range(16))), QEMU_7_2)
    assert "virtio-scsi-pci,id=hw-userdata15,iothread=io-userdata15,bus=pci.0,addr=0x1b" in argv
    with pytest.raises(QemuError, match="17 data disks"):
        evolve(USUAL, data=(Disk("/d"),) * 17)


def test_no_two_devices_share_a_slot() -> None:
    argv = build(evolve(USUAL, data=tuple(Disk(f"/d{n}") for n in range(16))), QEMU_7_2)
    slots = [word.rsplit("addr=", 1)[1] for word in argv if "addr=" in word]
    assert len(slots) == 24
    assert len(set(slots)) == len(slots)
    assert "0x1e" in slots


def test_q35_has_another_bus_and_no_usb() -> None:
    argv = build(evolve(USUAL, machine_type="q35"), QEMU_7_2)
    assert not [word for word in argv if "pci.0" in word or "usb-uhci" in word]
    assert "virtio-serial-pci,id=virtio-serial0,bus=pcie.0,addr=0x3" in argv


def test_usb_is_optional() -> None:
    can = evolve(QEMU_7_2, devices=QEMU_7_2.devices - {"piix3-usb-uhci"})
    assert not [word for word in build(USUAL, can) if "uhci" in word]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/a,b", "/a,,b"),
        ("/a,,b", "/a,,,,b"),
        ("/x,if=ide,file=/etc/shadow", "/x,,if=ide,,file=/etc/shadow"),
        ("nbd:host:1", "./nbd:host:1"),
        ("json:{}", "./json:{}"),
        ("disk.img", "./disk.img"),
        ("/dev/sdb", "/dev/sdb"),
    ],
)
def test_special_characters_in_paths_are_escaped(path: str, written: str) -> None:
    argv = build(evolve(USUAL, boot=Disk(path)), QEMU_7_2)
    (drive,) = (word for word in argv if "id=drive-synoboot,f" in word)
    assert drive.startswith(f"file={written},if=none,id=drive-synoboot,format=raw,")


def test_folders_of_qemus_data_are_arguments() -> None:
    can = evolve(QEMU_7_2, program=Program("/opt/qemu", ("/opt/a b", "/opt/c")))
    assert build(USUAL, can)[:5] == ["/opt/qemu", "-L", "/opt/a b", "-L", "/opt/c"]


@pytest.mark.parametrize(
    ("machine", "can", "what"),
    [
        (evolve(USUAL, machine_type="pc-i440fx-99"), QEMU_7_2, "no machine type pc-i440fx-99; qemu-system-x86_64 -mach"),
        (evolve(USUAL, machine_type="microvm"), QEMU_7_2, "machine type microvm: the guest finds its disks by PCI slot"),
        (Machine(lock_memory=True), BARE, "can't lock memory"),
        (Machine(), BARE, "no device virtio-balloon-pci"),
        (Machine(), evolve(QEMU_7_2, devices=QEMU_7_2.devices - {"pvpanic-pci"}),
         "no device pvpanic-pci; use QEMU 7.2 or later"),
        (Machine(vchannel=Vchannel("/s")), evolve(BARE, devices=QEMU_7_2.devices), "can't reconnect a socket"),
        (Machine(boot=VhostDisk("naa.1")), evolve(QEMU_7_2, devices=QEMU_7_2.devices - {"vhost-scsi-pci"}),
         "no device vhost-scsi-pci"),
    ],
)  # fmt: skip
def test_machine_that_qemu_does_not_support_is_rejected(machine: Machine, can: Capabilities, what: str) -> None:
    with pytest.raises(QemuError) as caught:
        build(machine, can)
    assert what in str(caught.value)


def test_printed_command_is_quoted_for_a_shell() -> None:
    words = ["-a", "it's", "-b", "", "$HOME", "*", "-append", "-x y", "a\nb", "\\", "-last"]
    command = format_command(["printf", "%s\\0", *words])
    said = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
    assert said.split("\0")[:-1] == words
    assert command.split(" \\\n    ")[:3] == ["printf '%s\\0'", "-a 'it'\"'\"'s'", "-b '' '$HOME' '*'"]
