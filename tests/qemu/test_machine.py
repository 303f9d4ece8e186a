from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vhostcomm.errors import QemuError
from vhostcomm.qemu.machine import (
    BridgeNet,
    DirectKernel,
    Disk,
    Forward,
    Machine,
    SerialFile,
    TapNet,
    Vchannel,
    VhostDisk,
)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Disk(""), "path is ''"),
        (lambda: Disk("/a\0b"), "not the name of a file"),
        (lambda: VhostDisk("naa.1,addr=0x1"), "wwpn is 'naa.1,addr=0x1': naa. and hexadecimal digits"),
        (lambda: VhostDisk("/dev/sda"), "wwpn is"),
        (lambda: Forward(0, 80), "host port is 0: expected 1 to 65535"),
        (lambda: Forward(80, 65536), "guest port is 65536"),
        (lambda: Forward(80, 80, "sctp"), "expected tcp or udp"),
        (lambda: Forward(80, 80, host_address="1.2.3.4-:22,hostfwd=tcp:"), "expected an IPv4 address of this host"),
        (lambda: TapNet("tap0,script=/tmp/x"), "interface is"),
        (lambda: TapNet("sixteen-letters-"), "1 to 15"),
        (lambda: TapNet("../x"), "interface is"),
        (lambda: BridgeNet("br0,helper=/tmp/x"), "bridge is"),
        (lambda: SerialFile(""), "path is ''"),
        (lambda: Vchannel("/" + "x" * 107), "108 bytes; a socket's path can have at most 107"),
        (lambda: Vchannel("/" + "ü" * 54), "109 bytes"),
        (lambda: DirectKernel("/k", append="a\nb"), "append is 'a\\nb': expected one line"),
        (lambda: Machine(memory=1), "memory is 1: expected 16 to"),
        (lambda: Machine(cpus=0), "cpus is 0"),
        (lambda: Machine(machine_type="pc,accel=tcg"), "machine type is 'pc,accel=tcg'"),
        (lambda: Machine(machine_type="-x"), "machine type is"),
        (lambda: Machine(name="a\x1b[31m"), "name is 'a\\x1b[31m'"),
        (lambda: Machine(cpu="host -daemonize"), "cpu is"),
        (lambda: Machine(mac="02:11:32:2b:0f"), "six pairs"),
        (lambda: Machine(mac="02:11:32:2b:0f:e6,id=x"), "six pairs"),
        (lambda: Machine(extra=("-daemonize",)), "QEMU would leave its supervisor"),
        (lambda: Machine(extra=("--daemonize",)), "QEMU would leave its supervisor"),
        (lambda: Machine(extra=("a\0b",)), "it contains a NUL"),
    ],
)
def test_invalid_machines_are_rejected(make: Callable[[], Any], what: str) -> None:
    with pytest.raises(QemuError) as caught:
        make()
    assert what in str(caught.value)


def test_valid_machines_are_accepted() -> None:
    assert Vchannel("/" + "x" * 106).path
    assert VhostDisk("naa.119ec5c1-4c72-490c-8e30-1e0551503def").wwpn
    assert TapNet("tap0211322b0fe6").interface
    assert Machine(cpu="Skylake-Client-v3,+vmx,hv_relaxed=on").cpu
    assert Machine(name="mein gäst").name
    assert DirectKernel("/k", append='console=ttyS0,115200n8 x="a b"').append
