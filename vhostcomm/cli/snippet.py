"""`vhostcomm snippet`: what to paste elsewhere, made from the configuration. One small function per kind."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import attrs
from cyclopts import Group, Parameter

from vhostcomm.cli.flags import Place
from vhostcomm.cli.help import group_of_verbs
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.cli.snippet_target import QEMU_FLAGS, UNIT_FLAGS, Which, WhichQemu, WhichUnit
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError

if TYPE_CHECKING:
    from vhostcomm.snippet import Snippet

app = group_of_verbs("snippet", "Print configuration for QEMU, libvirt, Proxmox VE, systemd or containers, to paste.")

_MACHINE = Group("The machine", sort_key=0)
_HOOKSCRIPT = Group("The hookscript", sort_key=0)


Guest: TypeAlias = Annotated[Which | None, Parameter(name="*")]
OfUnit: TypeAlias = Annotated[WhichUnit | None, Parameter(name="*")]
Qemu: TypeAlias = Annotated[WhichQemu | None, Parameter(name="*")]


@app.command
def qemu(
    *,
    which: OfUnit = None,
    spelt_for: Qemu = None,
    bus: Annotated[
        Literal["pci.0", "pcie.0"], Parameter(group=QEMU_FLAGS, help="The machine's; pcie.0 with q35.")
    ] = "pci.0",
) -> None:
    """Print QEMU's arguments for the vchannel, to append to its command."""
    from vhostcomm.snippet.qemu import arguments

    guest = (which or WhichUnit()).external().guest
    _show(arguments(guest, (spelt_for or WhichQemu()).spelling(), bus=bus))


@app.command
def libvirt(
    *,
    which: OfUnit = None,
    domain: Annotated[
        bool,
        Parameter(negative=(), group=_MACHINE, help="Print a whole domain, like the genuine host's; needs --boot."),
    ] = False,
    boot: Annotated[
        Place | None, Parameter(metavar="DISK", group=_MACHINE, help="The boot disk, as for run: at PCI slot 0xa.")
    ] = None,
    system: Annotated[Place | None, Parameter(metavar="DISK", group=_MACHINE, help="The system disk, at 0xb.")] = None,
    data: Annotated[
        list[Place] | None,
        Parameter(metavar="DISK", negative=(), group=_MACHINE, help="A data disk, from 0xc; may be repeated."),
    ] = None,
    memory: Annotated[str, Parameter(metavar="SIZE", group=_MACHINE, help="Memory, such as 1G.")] = "1G",
    cpus: Annotated[
        int | None,
        Parameter(show=False, help="An older name of --vcpus."),
    ] = None,
    accel: Annotated[Literal["kvm", "tcg"], Parameter(group=_MACHINE, help="The accelerator.")] = "kvm",
    machine: Annotated[str, Parameter(metavar="TYPE", group=_MACHINE, help="QEMU's machine type.")] = "pc",
    net: Annotated[
        str,
        Parameter(metavar="NET", group=_MACHINE, help="network=LIBVIRTS, user, tap=INTERFACE, bridge=BRIDGE or none."),
    ] = "network=default",
    mac: Annotated[str | None, Parameter(metavar="MAC", group=_MACHINE, help="The guest's MAC address.")] = None,
    serial_console: Annotated[
        str,
        Parameter(metavar="CONSOLE", group=_MACHINE, help="pty, for virsh console, or a file to append to."),
    ] = "pty",
    emulator: Annotated[
        str,
        Parameter(
            metavar="PROGRAM",
            group=_MACHINE,
            show_default=False,
            help="QEMU's executable, if not libvirt's own choice.",
        ),
    ] = "",
) -> None:
    """Print libvirt's XML of the channel and its controller for a domain; with --domain, a whole domain."""
    found = (which or WhichUnit()).external()
    config, guest = found.config, found.guest
    if not domain:
        from vhostcomm.snippet.libvirt import devices

        _refuse_without_domain(
            boot=boot, system=system, data=data, memory=memory != "1G", cpus=cpus, accel=accel != "kvm",
            machine=machine != "pc", net=net != "network=default", mac=mac, serial_console=serial_console != "pty",
            emulator=emulator,
        )  # fmt: skip
        _show(devices(guest, held=found.is_held))
        return
    if not boot:
        raise UsageError("--domain needs a boot disk: give --boot, and --system and --data as for run")
    from vhostcomm.cli.machine_options import Wanted, machine_of
    from vhostcomm.qemu import Accelerator
    from vhostcomm.snippet import channel_of
    from vhostcomm.snippet.domain import domain as whole

    kind, _, network = net.partition("=")
    if kind == "network" and not network:
        raise UsageError(
            "--net network=NAME: the name of libvirt's network is missing; virsh net-list --all lists them"
        )
    if emulator and shutil.which(emulator) is None:
        raise UsageError(f"--emulator {emulator}: no such program; libvirt takes its own choice without it")
    wanted = Wanted(
        boot=boot, system=system, data=tuple(data or ()), snapshot=False, name=guest.name, memory=memory,
        cpus=cpus or guest.identity.vcpus, accel=accel, machine=machine, net="none" if kind == "network" else net,
        forward=(), mac=mac, serial_console="none" if serial_console == "pty" else serial_console,
        qemu=emulator, qemu_data=(), direct_kernel=None, initrd=None, append="", hugepages=None, lock_memory=False,
        no_reboot=False, grace=90.0, restart="no", on=(), extra=(),
    )  # fmt: skip
    only = Config(config.host, (guest,), config.service)
    try:
        made = machine_of(wanted, only, Accelerator(accel), channel_of(guest))
    except QemuError as error:
        raise UsageError(str(error)) from None
    _show(
        whole(
            guest,
            made,
            emulator=str(Path(shutil.which(emulator) or "").absolute()) if emulator else "",
            network=network if kind == "network" else "",
            held=found.is_held,
        )
    )


def _refuse_without_domain(**machine: object) -> None:
    """Reject flags of the machine that the channel alone can't honour."""
    if flags := [f"--{name.replace('_', '-')}" for name, value in machine.items() if value]:
        raise UsageError(f"{', '.join(flags)}: only a whole domain has a machine and disks: add --domain")


@app.command
def proxmox(
    *,
    vmid: Annotated[int | None, Parameter(metavar="N", group=QEMU_FLAGS, help="The VM's number; needed.")] = None,
    which: OfUnit = None,
    spelt_for: Qemu = None,
) -> None:
    """Print commands for a Proxmox VE host: the VM's args, the slots of its disks, its hookscript."""
    from vhostcomm.snippet.proxmox import commands

    if vmid is None:
        raise UsageError("--vmid N is missing: the VM's number; qm list shows the numbers in use")
    which = which or WhichUnit()
    guest = which.external().guest
    _show(commands(guest, vmid, (spelt_for or WhichQemu()).spelling(), which.words()))


@app.command
def hookscript(
    *,
    which: OfUnit = None,
    wait: Annotated[
        int,
        Parameter(
            metavar="SECONDS",
            group=_HOOKSCRIPT,
            help="Seconds for the guest's own power-off; Proxmox VE gives a shutdown 60.",
        ),
    ] = 50,
    program: Annotated[
        str | None,
        Parameter(
            metavar="PROGRAM", group=_HOOKSCRIPT, help="vhostcomm's executable, for the script; this one by default."
        ),
    ] = None,
) -> None:
    """Print a hookscript for Proxmox VE: it starts no VM without a daemon, and stops a VM by its own power-off."""
    from vhostcomm.snippet.hookscript import script

    found = (which or WhichUnit()).external()
    guest = attrs.evolve(found.guest, name=found.name)
    _show(script(guest, found.control, program=program or _program(), unit=found.service, wait=wait))


@app.command
def systemd(
    *,
    which: OfUnit = None,
    program: Annotated[
        str | None,
        Parameter(metavar="PROGRAM", group=UNIT_FLAGS, help="vhostcomm's executable, for the unit; this one by default."),
    ] = None,
) -> None:  # fmt: skip
    """Print a systemd unit: for all guests of a file, one guest, a launcher, or a socket."""
    from vhostcomm.snippet.systemd import unit as made
    from vhostcomm.systemd import units

    which = which or WhichUnit()
    executable = program or units.running_executable()
    if which.is_of_all:
        config = which.all_guests()
        _show(made(config, None, units.SERVE, executable=executable, file=which.config))
        return
    found = which.served(units.SERVE_ONE)
    _show(made(found.config, found.guest, found.unit, executable=executable, file=which.config))


@app.command
def compose(
    *,
    which: Guest = None,
    qemu_version: Annotated[
        str | None,
        Parameter(
            metavar="VERSION", group=QEMU_FLAGS, help="The version of the QEMU in the other container; such as 7.2."
        ),
    ] = None,
) -> None:
    """Print a compose file: a container that serves the guest, beside the container with its QEMU."""
    from vhostcomm.snippet import Spelling
    from vhostcomm.snippet.compose import compose as file

    config, guest = (which or Which()).find()
    _show(file(config, guest, Spelling.of_version(qemu_version) if qemu_version else Spelling.unasked()))


def _show(snippet: Snippet) -> None:
    for remark in snippet.remarks:
        print_error(f"vhostcomm: {remark}")
    print_line(snippet.text)


def _program() -> str:
    """The program that runs now, as a script can run it."""
    started = Path(sys.argv[0])
    if started.name == "vhostcomm" and os.access(started, os.X_OK):
        return str(started.absolute())
    return shutil.which("vhostcomm") or "vhostcomm"
