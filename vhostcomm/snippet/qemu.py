"""QEMU's arguments for the vchannel port."""

from __future__ import annotations

from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.argv import format_command, vchannel
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
