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
    machines=frozenset({"pc", "pc-i440fx-7.2", "q35", "pc-q35-7.2", "microvm", "none"}),
    devices=frozenset(DEVICES),
    vhost_scsi=frozenset(
        {"wwpn", "addr", "bootindex", "boot_tpgt", "cmd_per_lun", "max_sectors", "num_queues", "virtqueue_size"}
    ),
    free_page_reporting=True,
    io_uring=True,
    kvm_problem="it was not tried",
)

QEMU_10_0 = evolve(QEMU_7_2, version="10.0.2", reconnects=Reconnect.MILLISECONDS)

QEMU_11_1 = evolve(QEMU_10_0, version="11.1.3")

GENUINE_HOST = evolve(
    QEMU_7_2,
    program=Program("/usr/local/bin/qemu-system-x86_64"),
    version="2.x, as the genuine host has it",
    sandbox=False,
    free_page_reporting=False,
    io_uring=False,
    machines=frozenset({"pc", "pc-i440fx-2.2"}),
    vhost_scsi=QEMU_7_2.vhost_scsi | {"set_driverok"},
)

BARE = evolve(
    QEMU_7_2,
    reconnects=None,
    memory_lock=False,
    devices=frozenset({"isa-serial", "virtio-serial-pci", "virtserialport"}),
    vhost_scsi=frozenset(),
)
