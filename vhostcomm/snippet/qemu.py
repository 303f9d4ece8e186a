"""QEMU's arguments for the vchannel port."""

from __future__ import annotations

from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.argv import build, format_command, vchannel
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.machine import Machine
from vhostcomm.qemu.net_argv import after_passt
from vhostcomm.snippet.parts import PORT, Snippet, Spelling, channel_of, qmp_of, qmp_remark


def arguments(guest: GuestConfig, spelling: Spelling, *, bus: str = "pci.0") -> Snippet:
    """Make the arguments, to append to a QEMU command, with each option on its own line.

    Args:
        guest: the guest to connect.
        spelling: for its QEMU.
        bus: the machine's PCI bus; ``pcie.0`` for q35.

    Raises:
        UsageError: QEMU can't connect to the guest's address.
    """
    found = [*vchannel(channel_of(guest), spelling.reconnects, bus=bus), *qmp_of(guest)]
    return Snippet(
        format_command(found),
        (
            spelling.why,
            "if the machine already has a virtio-serial controller: omit this one, and replace virtio-serial0 by its id",
            PORT,
            qmp_remark(guest),
        ),
    )


def command(machine: Machine, changes: tuple[str, ...], can: Capabilities, spelling: Spelling) -> Snippet:
    """The whole command of a machine.

    Args:
        machine: as this host can run it.
        changes: what of the wanted one had to give way, a sentence each.
        can: what the QEMU can do.
        spelling: which QEMU that is.

    Raises:
        QemuError: the QEMU can't run it.
    """
    return Snippet(after_passt(machine, format_command(build(machine, can))), (spelling.why, *changes))
