"""The settings of a Proxmox VE VM: its ``args``, its hookscript and the slots of its disks.

They use slots and ids that are free in Proxmox VE if its own guest agent is off; the agent would use 0x8.
With the controller type virtio-scsi-single, a disk at scsiN has its own controller at slot N + 1. So scsi9, scsi10 and
scsi11 are at 0xa, 0xb and 0xc in the guest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from vhostcomm.config.models import GuestConfig
from vhostcomm.errors import UsageError
from vhostcomm.qemu.argv import vchannel
from vhostcomm.qemu.machine import TcpVchannel
from vhostcomm.snippet.parts import Snippet, Spelling, channel_of, qmp_of, qmp_remark

AGENT_SLOT: Final = 0x8

VMID_MIN: Final = 100
VMID_MAX: Final = 999_999_999
"""Proxmox VE's own limits."""


def args(guest: GuestConfig, spelling: Spelling) -> str:
    """Return the value of the VM's ``args``.

    Raises:
        UsageError: QEMU can't connect to the guest's address.
    """
    return shlex.join([*vchannel(channel_of(guest), spelling.reconnects, slot=AGENT_SLOT), *qmp_of(guest)])


def commands(guest: GuestConfig, vmid: int, spelling: Spelling, words: Iterable[str] = ()) -> Snippet:
    """Make the commands to paste on the Proxmox host, with explanations as comments.

    Args:
        guest: the guest to run.
        vmid: the id of the VM.
        spelling: for its QEMU.
        words: the flags that select the guest for `vhostcomm snippet`.

    Raises:
        UsageError: the id is out of range, or QEMU can't connect to the guest's address.
    """
    if not VMID_MIN <= vmid <= VMID_MAX:
        raise UsageError(f"--vmid {vmid}: it is {VMID_MIN} to {VMID_MAX}")
    value = args(guest, spelling)
    script = f"vhostcomm-{guest.name}"
    hookscript = shlex.join(["vhostcomm", "snippet", "hookscript", *words])
    one = (
        "# A TCP port is of one guest: give each guest its own, or better a unix socket."
        if isinstance(channel_of(guest), TcpVchannel)
        else "# The socket is this guest's alone, so any number of guests are served on this host."
    )
    return Snippet(
        f"""\
# The guest {guest.name} as VM {vmid} of Proxmox VE; paste this as root on the Proxmox host.
# Tried with QEMU itself, not on a Proxmox VE: nobody here has one. The arguments are
# {spelling.why}.

# The vchannel. Proxmox VE's own guest agent would take slot {AGENT_SLOT:#x} and is not what the guest speaks, so it is off.
{one}
# The guest's Linux calls the port /dev/vport1p1, as on a genuine host, because Proxmox VE's balloon device comes before
# it; without that (balloon: 0) it is /dev/vport0p1. A genuine guest finds it by its name or as /dev/vport1p1: nobody
# knows which, so leave the balloon device there.
# QMP: {qmp_remark(guest)}.
qm set {vmid} --agent 0 --scsihw virtio-scsi-single
qm set {vmid} --args {shlex.quote(value)}

# The guest knows its disks by their places: scsi9 is the boot disk, scsi10 the system disk, scsi11 and on are data disks.
#   qm set {vmid} --scsi9 STORAGE:vm-{vmid}-disk-0 --scsi10 STORAGE:vm-{vmid}-disk-1 --scsi11 STORAGE:vm-{vmid}-disk-2
#   qm set {vmid} --boot order=scsi9

# Its hookscript: it is not started with nobody to answer, and stopped by its own power-off. The storage local has to
# allow snippets (Datacenter, Storage).
#   {hookscript} >/var/lib/vz/snippets/{script}
#   chmod 755 /var/lib/vz/snippets/{script}
#   qm set {vmid} --hookscript local:snippets/{script}

# The daemon has to be there before Proxmox VE starts its guests: its unit has Before=pve-guests.service.

# /etc/pve/qemu-server/{vmid}.conf has then:
#   agent: 0
#   args: {value}
#   boot: order=scsi9
#   hookscript: local:snippets/{script}
#   scsihw: virtio-scsi-single"""
    )
