"""The settings of a Proxmox VE VM: its ``args``, its hookscript and the slots of its disks.

They use slots and ids that are free in Proxmox VE if its own guest agent is off; the agent would use 0x8.
With the controller type virtio-scsi-single, a disk at scsiN has its own controller at slot N + 1. So scsi9, scsi10 and
scsi11 are at 0xa, 0xb and 0xc in the guest.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final, assert_never

from vhostcomm.config.models import GuestConfig
from vhostcomm.errors import UsageError
from vhostcomm.qemu.argv import BOOT_SLOT, disks_of, vchannel
from vhostcomm.qemu.disk.options import DetectZeroes
from vhostcomm.qemu.machine import BridgeNet, Disk, Machine, TapNet, TcpVchannel, VhostDisk
from vhostcomm.snippet.parts import Snippet, Spelling, channel_of, qmp_of, qmp_remark

AGENT_SLOT: Final = 0x8

VMID_MIN: Final = 100
VMID_MAX: Final = 999_999_999
"""Proxmox VE's own limits."""


def commands(
    guest: GuestConfig,
    vmid: int,
    spelling: Spelling,
    words: Iterable[str] = (),
    *,
    machine: Machine | None = None,
    storage: str = "",
) -> Snippet:
    """Make the commands to paste on the Proxmox host, with explanations as comments.

    Args:
        guest: the guest to run.
        vmid: the id of the VM.
        spelling: for its QEMU.
        words: the flags that select the guest for `vhostcomm snippet`.
        machine: to create; None for an existing VM.
        storage: of Proxmox VE, for the machine's disks.

    Raises:
        UsageError: the id is out of range, or QEMU can't connect to the guest's address.
    """
    if not VMID_MIN <= vmid <= VMID_MAX:
        raise UsageError(f"--vmid {vmid}: expected {VMID_MIN} to {VMID_MAX}")
    arguments = [*vchannel(channel_of(guest), spelling.reconnects, slot=AGENT_SLOT), *qmp_of(guest)]
    value = shlex.join([*arguments, *(_changes(machine) if machine else ())])
    script = f"vhostcomm-{guest.name}"
    hookscript = shlex.join(["vhostcomm", "snippet", "hookscript", *words])
    one = (
        "# A TCP port serves one guest only: give each guest its own port, or better a unix socket."
        if isinstance(channel_of(guest), TcpVchannel)
        else "# The socket is for this guest only, so this host can serve any number of guests."
    )
    qmp = qmp_remark(guest).replace("\n", "\n# ")
    new = "\n".join(_creation(guest, machine, vmid)) + "\n\n" if machine else ""
    places = "\n".join(_imports(machine, vmid, storage)) if machine else _PLACES.format(vmid=vmid)
    return Snippet(
        f"""\
# The guest {guest.name} as VM {vmid} of Proxmox VE; paste this as root on the Proxmox host.
# Tested with QEMU itself, but not on a Proxmox VE host. The arguments are
# {spelling.why}.

{new}# The vchannel. Proxmox VE's own guest agent would use slot {AGENT_SLOT:#x}, and the guest doesn't speak its
# protocol: turn it off.
{one}
# The guest's Linux names the port /dev/vport1p1, as on a genuine host, because Proxmox VE's balloon device precedes it.
# Without that (balloon: 0), the name is /dev/vport0p1. It is unknown whether a genuine guest finds the port by its
# virtio name or as /dev/vport1p1, so keep the balloon device.
# QMP: {qmp}
qm set {vmid} --agent 0 --scsihw virtio-scsi-single
qm set {vmid} --args {shlex.quote(value)}

# The guest identifies its disks by their slots: scsi9 is the boot disk, scsi10 the system disk, and
# scsi11 the first data disk.
{places}

# Its hookscript: the VM starts only if a daemon serves the guest, and stops by the guest's own power-off. The storage
# local has to allow snippets (Datacenter, Storage).
#   {hookscript} >/var/lib/vz/snippets/{script}
#   chmod 755 /var/lib/vz/snippets/{script}
#   qm set {vmid} --hookscript local:snippets/{script}

# The daemon has to start before Proxmox VE starts its guests: its unit has Before=pve-guests.service.

# /etc/pve/qemu-server/{vmid}.conf then has:
#   agent: 0
#   args: {value}
#   boot: order=scsi9
#   hookscript: local:snippets/{script}
#   scsihw: virtio-scsi-single"""
    )


_PLACES: Final = """\
#   qm set {vmid} --scsi9 STORAGE:vm-{vmid}-disk-0 --scsi10 STORAGE:vm-{vmid}-disk-1 --scsi11 STORAGE:vm-{vmid}-disk-2
#   qm set {vmid} --boot order=scsi9"""

_FIRST: Final = 9
"""The number of the boot disk's place."""
_LAST: Final = 30
"""Proxmox VE's last scsiN."""

_BRIDGE: Final = "vmbr0"


def _creation(guest: GuestConfig, machine: Machine, vmid: int) -> Iterator[str]:
    """The command that makes the VM without its disks."""
    bridge = machine.net.bridge if isinstance(machine.net, BridgeNet) else _BRIDGE
    card = f"virtio{f'={machine.mac.upper()}' if machine.mac else ''},bridge={bridge}"
    if isinstance(machine.net, TapNet) and machine.net.queues and machine.net.queues > 1:
        card += f",queues={machine.net.queues}"
    words = ["qm", "create", str(vmid), "--name", re.sub(r"[^A-Za-z0-9.-]+", "-", guest.name).strip("-.") or "vdsm"]
    words += ["--ostype", "l26", "--memory", str(machine.memory), "--cores", str(machine.cpus)]
    words += ["--cpu", (machine.cpu or "host").split(",")[0], "--net0", card, "--serial0", "socket"]
    yield "# The VM, a new one."
    if machine.hugepages:
        words += ["--numa", "1", "--hugepages", "any"]  # Proxmox VE has huge pages only with NUMA
        yield "# It starts only while the host has enough free huge pages."
    yield shlex.join([*words, "--smbios1", f"uuid={machine.uuid}"] if machine.uuid else words)


def _changes(machine: Machine) -> Iterator[str]:
    """Yield QEMU's arguments for what Proxmox VE has no setting for. They change its own arguments, which precede them."""
    if machine.cpu and "," in machine.cpu:
        yield from ("-cpu", machine.cpu)
    for slot, _, disk in disks_of(machine):
        number = _FIRST + slot - BOOT_SLOT
        if isinstance(disk, Disk) and number <= _LAST and disk.options.rotation_rate > 1:
            yield from ("-set", f"device.scsi{number}.rotation_rate={disk.options.rotation_rate}")


def _imports(machine: Machine, vmid: int, storage: str) -> Iterator[str]:
    """The commands that copy the disks into a storage, and put each into its place."""
    yield "# Each is copied into the storage. An imported disk is unused0 until it has its place."
    for slot, _, disk in disks_of(machine):
        number = _FIRST + slot - BOOT_SLOT
        match disk:
            case Disk() if number <= _LAST:
                path = os.path.abspath(disk.path)  # noqa: PTH100 - a path to print, not one that is opened here
                yield shlex.join(["qm", "importdisk", str(vmid), path, storage])
                unused = f"$(qm config {vmid} | sed -n 's/^unused0: //p')"
                yield f'qm set {vmid} --scsi{number} "{unused},{_options(disk)}"'
            case Disk():
                yield f"# {disk.path}: has no place; Proxmox VE has {_LAST} at most"
            case VhostDisk(wwpn=wwpn):
                yield f"# scsi{number}: {wwpn} is a disk of the kernel's target, which qm has no word for"
            case _ as never:
                assert_never(never)
    yield f"qm set {vmid} --boot order=scsi{_FIRST}"


def _options(disk: Disk) -> str:
    """A disk's options in Proxmox VE's words; its only rotation rate is an SSD's, `_changes` has the others."""
    how = disk.options
    found = {"cache": how.cache.value, "aio": how.effective_aio.value, "discard": "on" if how.discard else "ignore"}
    found |= {"detect_zeroes": "0" if how.detect_zeroes is DetectZeroes.OFF else "1"}
    found |= {"iothread": "1"} if how.iothread else {}
    found |= {"ssd": "1"} if how.rotation_rate == 1 else {}
    found |= {"serial": how.serial} if how.serial else {}
    return ",".join(f"{name}={value}" for name, value in found.items())
