"""QEMU's arguments of the vchannel port."""

from __future__ import annotations

from vhostcomm.config.models import GuestConfig
from vhostcomm.qemu.argv import format_command, vchannel
from vhostcomm.snippet.parts import PORT, Snippet, Spelling, channel_of, qmp_of, qmp_remark


def arguments(guest: GuestConfig, spelling: Spelling, *, bus: str = "pci.0") -> Snippet:
    """The arguments, to paste behind a QEMU's command: each option on a line of its own.

    Args:
        guest: whose.
        spelling: for which QEMU.
        bus: the machine's PCI bus; ``pcie.0`` with q35.

    Raises:
        UsageError: QEMU can't get at the guest's address.
    """
    found = [*vchannel(channel_of(guest), spelling.reconnects, bus=bus), *qmp_of(guest)]
    return Snippet(
        format_command(found),
        (
            spelling.why,
            "where the machine has a virtio-serial controller already: leave ours out, and put its id for virtio-serial0",
            PORT,
            qmp_remark(guest),
        ),
    )
