"""The capabilities of different QEMUs: as probed, and one invented QEMU."""

from __future__ import annotations

from attrs import evolve

from vhostcomm.qemu.capabilities import DEVICES, Capabilities, Program, Reconnect

QEMU_7_2 = Capabilities(
    program=Program(),
    version="7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
    reconnects=Reconnect.SECONDS,
    memory_lock=True,
    sandbox=True,
    machines=frozenset({"pc", "pc-i440fx-2.2", "pc-i440fx-7.2", "q35", "pc-q35-7.2", "microvm", "none"}),
    devices=frozenset(DEVICES),
    io_uring=True,
    kvm_problem="it was not tried",
)

QEMU_10_0 = evolve(QEMU_7_2, version="10.0.2", reconnects=Reconnect.MILLISECONDS)

QEMU_11_1 = evolve(QEMU_10_0, version="11.1.3")

BARE = evolve(
    QEMU_7_2,
    reconnects=None,
    memory_lock=False,
    devices=frozenset({"isa-serial", "virtio-serial-pci", "virtserialport"}),
)
