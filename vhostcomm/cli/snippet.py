"""`vhostcomm snippet`: print text to paste elsewhere, made from the configuration. One small function per kind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import attrs
from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.flags import Place, given
from vhostcomm.cli.help import group_of_verbs
from vhostcomm.cli.machine_flags import MachineFlags
from vhostcomm.cli.output import print_line, print_remark
from vhostcomm.cli.snippet_target import (
    QEMU_FLAGS,
    UNIT_FLAGS,
    ExternalSelection,
    GuestSelection,
    ProxmoxSelection,
    QemuSelection,
    ScriptSelection,
    ServedGuest,
    UnitSelection,
)
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError
from vhostcomm.snippet.hookscript import WAIT, script
from vhostcomm.systemd import units

if TYPE_CHECKING:
    from vhostcomm.qemu.machine import Machine
    from vhostcomm.snippet.parts import Snippet

app = group_of_verbs("snippet", "Print configuration for QEMU, libvirt, Proxmox VE, systemd or containers, to paste.")

_MACHINE = Group("The machine", sort_key=0)
_HOOKSCRIPT = Group("The hookscript", sort_key=0)


Folder: TypeAlias = Annotated[
    Place | None,
    Parameter(
        name=["--directory", "--folder"],
        help="A directory that `vhostcomm install` made: print the whole machine, with its disks.",
    ),
]


@app.command(usage="Usage: vhostcomm snippet qemu [OPTIONS] [DIRECTORY]")
def qemu(
    folder: Folder = None,
    *,
    which: ExternalSelection | None = None,
    spelt_for: QemuSelection | None = None,
    bus: Annotated[
        Literal["pci.0", "pcie.0"], Parameter(group=QEMU_FLAGS, help="The machine's bus; pcie.0 with q35.")
    ] = "pci.0",
    accel: Annotated[
        Literal["kvm", "tcg"], Parameter(group=_MACHINE, help="The accelerator, with a DIRECTORY.")
    ] = "kvm",
) -> None:
    """Print QEMU's arguments for the vchannel, to append to its command; with a DIRECTORY, the whole command."""
    from vhostcomm.snippet.qemu import arguments

    which = (which or ExternalSelection()).of_folder(folder)
    found = which.external()
    which.reject_unused(found.unit, whole=folder is not None)
    spelling, can = (spelt_for or QemuSelection()).asked()
    if folder is None:
        _refuse(which, accel=accel != "kvm", remedy=_GIVE_DIRECTORY)
        _show(arguments(found.guest, spelling, bus=bus))
        return
    from vhostcomm.qemu.argv import build, format_command
    from vhostcomm.qemu.host_adaptation import fitted
    from vhostcomm.qemu.net_argv import after_passt
    from vhostcomm.snippet.parts import Snippet, qmp_of

    if bus != "pci.0":
        raise UsageError(f"--bus {bus}: a whole machine has the bus of its type, pc: leave it out")
    made, changes = fitted(_machine(found, MachineFlags(accel=accel), qmp_of(found.guest)), can.io_uring)
    text = after_passt(made, format_command(build(made, can)))
    _show(Snippet(text, (spelling.why, *changes)))


@Parameter(name="*", group=_MACHINE)
@frozen
class DomainFlags:
    """The flags of a whole domain."""

    domain: Annotated[
        bool,
        Parameter(help="Print a whole domain, like the genuine host's, as with a DIRECTORY; needs --boot."),
    ] = False
    boot: Annotated[Place | None, Parameter(metavar="DISK", help="The boot disk, as for run: at PCI slot 0xa.")] = None
    system: Annotated[Place | None, Parameter(metavar="DISK", help="The system disk, at 0xb.")] = None
    data: Annotated[list[Place] | None, Parameter(metavar="DISK", help="A data disk, from 0xc; may be repeated.")] = (
        None
    )
    memory: Annotated[str | None, Parameter(metavar="SIZE", help="Memory; MiB without a unit; 1G by default.")] = None
    cpus: Annotated[int | None, Parameter(show=False, help="An older name of --vcpus.")] = None
    accel: Annotated[Literal["kvm", "tcg"], Parameter(help="The accelerator.")] = "kvm"
    machine: Annotated[str, Parameter(metavar="TYPE", help="QEMU's machine type.")] = "pc"
    net: Annotated[
        str | None,
        Parameter(
            metavar="NET",
            help="The guest's network: network=LIBVIRTS (network=default by default), user, passt, tap=INTERFACE, bridge=BRIDGE or none.",
        ),
    ] = None
    mac: Annotated[str | None, Parameter(metavar="MAC", help="The guest's MAC address.")] = None
    serial_console: Annotated[
        str,
        Parameter(metavar="CONSOLE", help="The guest's console: pty, for virsh console, or a file to append to."),
    ] = "pty"
    emulator: Annotated[
        str,
        Parameter(metavar="PROGRAM", show_default=False, help="QEMU's executable, if not libvirt's own choice."),
    ] = ""


@app.command(usage="Usage: vhostcomm snippet libvirt [OPTIONS] [DIRECTORY]")
def libvirt(
    folder: Folder = None, *, which: ExternalSelection | None = None, of_domain: DomainFlags | None = None
) -> None:
    """Print libvirt's XML of the channel and its controller for a domain; with --domain, a whole domain."""
    wanted = of_domain or DomainFlags()
    is_whole = wanted.domain or folder is not None
    which = (which or ExternalSelection()).of_folder(folder)
    found = which.external()
    which.reject_unused(found.unit, whole=is_whole)
    guest = found.guest
    if not is_whole:
        from vhostcomm.snippet.libvirt import devices

        changed = {each.name: getattr(wanted, each.name) != each.default for each in attrs.fields(DomainFlags)}
        _refuse(which, **changed, remedy="add --domain")
        _show(devices(guest, held=found.is_held))
        return
    from vhostcomm.qemu.host_adaptation import fitted
    from vhostcomm.snippet.domain import domain as whole

    net = wanted.net
    if net is None:  # QEMU's own network is of no use beside libvirt's
        net = guest.machine.net if guest.machine.net not in {"", "user"} else "network=default"
    kind, _, network = net.partition("=")
    if kind != "network":
        network = ""
    elif not network:
        raise UsageError(
            "--net network=NAME: the name of libvirt's network is missing; virsh net-list --all lists them"
        )
    emulator = shutil.which(wanted.emulator) if wanted.emulator else ""
    if emulator is None:
        raise UsageError(f"--emulator {wanted.emulator}: no such program; without the flag, libvirt chooses")
    flags = MachineFlags(
        boot=wanted.boot, system=wanted.system, data=wanted.data, memory=wanted.memory, cpus=wanted.cpus, accel=wanted.accel,
        machine=wanted.machine, mac=wanted.mac, net="none" if network else net,
        serial_console="none" if wanted.serial_console == "pty" else wanted.serial_console,
    )  # fmt: skip
    made, changes = fitted(_machine(found, flags), io_uring=True)
    emulator = emulator and str(Path(emulator).absolute())
    _show(whole(guest, made, emulator=emulator, network=network, held=found.is_held), changes)


def _machine(found: ServedGuest, flags: MachineFlags, extra: tuple[str, ...] = ()) -> Machine:
    """Make the machine of the guest's file, overridden by flags, and not adapted to this host.

    Args:
        found: the guest.
        flags: the machine's flags, with an accelerator.
        extra: QEMU's own arguments.

    Raises:
        UsageError: there is no boot disk, or flags are incompatible.
    """
    from vhostcomm.cli.machine_options import machine_of
    from vhostcomm.qemu.machine import Accelerator
    from vhostcomm.snippet.parts import channel_of

    guest = found.guest
    if not (flags.boot or guest.machine.boot):
        raise UsageError(
            "a whole machine needs a boot disk: give --boot, --system and --data as for run, or a directory of `vhostcomm install`"
        )
    config = Config(found.config.host, (guest,), found.config.service)
    try:
        return machine_of(flags, config, Accelerator(flags.accel), channel_of(guest), extra)
    except QemuError as error:
        raise UsageError(str(error)) from None


_GIVE_DIRECTORY: Final = "give a DIRECTORY that `vhostcomm install` made"


def _refuse(which: ExternalSelection, *, remedy: str, **machine: object) -> None:
    """Reject flags of the machine that the channel alone can't honour."""
    machine = {"vcpus": "vcpus" in given(which.settings)} | machine
    if flags := [f"--{name.replace('_', '-')}" for name, value in machine.items() if value]:
        raise UsageError(f"{', '.join(flags)}: only a whole machine has that: {remedy}")


@app.command(usage="Usage: vhostcomm snippet proxmox [OPTIONS] [DIRECTORY]")
def proxmox(
    folder: Folder = None,
    *,
    vmid: Annotated[int | None, Parameter(metavar="N", group=QEMU_FLAGS, help="The VM's number; required.")] = None,
    storage: Annotated[
        str, Parameter(metavar="STORAGE", group=_MACHINE, help="The storage for the disks of a DIRECTORY.")
    ] = "local-lvm",
    which: ProxmoxSelection | None = None,
    spelt_for: QemuSelection | None = None,
) -> None:
    """Print commands for a Proxmox VE host: the VM's args, the slots of its disks, its hookscript.

    With a DIRECTORY, also the commands that create the VM and import its disks.
    """
    from vhostcomm.snippet.proxmox import commands

    if vmid is None:
        raise UsageError("--vmid N is missing: the VM's number; qm list shows the numbers in use")
    which = (which or ProxmoxSelection()).of_folder(folder)
    found = which.external()
    which.reject_unused(found.unit, whole=folder is not None)
    spelling, _ = (spelt_for or QemuSelection()).asked()
    if folder is None:
        _refuse(which, storage=storage != "local-lvm", remedy=_GIVE_DIRECTORY)
        _show(commands(found.guest, vmid, spelling, which.words()))
        return

    made = _machine(found, MachineFlags(accel="kvm", serial_console="none", forward=[]))
    _show(commands(found.guest, vmid, spelling, which.words(), machine=made, storage=storage))


def _check_absolute(_: object, value: str | None) -> None:
    if value is not None and not value.startswith("/"):
        raise ValueError(f"must be an absolute path; for example: {units.EXECUTABLE}")


def _program(group: Group, what: str) -> Any:
    return Parameter(
        metavar="PROGRAM", group=group, help=f"vhostcomm's executable, for the {what}; this one by default.",
        validator=_check_absolute,
    )  # fmt: skip


@app.command
def hookscript(
    *,
    which: ScriptSelection | None = None,
    wait: Annotated[
        int,
        Parameter(
            metavar="SECONDS",
            group=_HOOKSCRIPT,
            help="Seconds for the guest's own power-off; Proxmox VE gives a shutdown 60.",
        ),
    ] = WAIT,
    program: Annotated[str | None, _program(_HOOKSCRIPT, "script")] = None,
) -> None:
    """Print a hookscript for Proxmox VE: a VM starts only with a daemon, and is stopped by the guest's own power-off."""
    which = which or ScriptSelection()
    found = which.external()
    guest = attrs.evolve(found.guest, name=found.name)
    made = script(guest, found.control, program=program or units.running_executable(), unit=found.service, wait=wait)
    which.reject_unused(found.unit)  # after the error of an address that needs a token or a certificate
    _show(made)


@app.command
def systemd(
    *,
    which: UnitSelection | None = None,
    program: Annotated[str | None, _program(UNIT_FLAGS, "unit")] = None,
) -> None:
    """Print a systemd unit: for all guests of a file, one guest, a launcher, or a socket."""
    from vhostcomm.snippet.systemd import unit as made

    which = which or UnitSelection()
    executable = program or units.running_executable()
    if config := which.all_guests():
        _show(made(config, None, units.SERVE, executable=executable, files=which.config or ()))
        return
    found = which.served(units.SERVE_ONE)
    which.check_settings(found.unit)
    _show(made(found.config, found.guest, found.unit, executable=executable, files=which.config or ()))


@app.command
def compose(
    *,
    which: GuestSelection | None = None,
    qemu_version: Annotated[
        str | None,
        Parameter(
            metavar="VERSION", group=QEMU_FLAGS, help="The version of the QEMU in the other container; such as 7.2."
        ),
    ] = None,
) -> None:
    """Print a compose file: a container that serves the guest, beside the container with its QEMU."""
    from vhostcomm.snippet.compose import compose as file
    from vhostcomm.snippet.parts import Spelling

    config, guest = (which or GuestSelection()).find()
    _show(file(config, guest, Spelling.of_version(qemu_version) if qemu_version else Spelling.unasked()))


def _show(snippet: Snippet, more: tuple[str, ...] = ()) -> None:
    for remark in (*snippet.remarks, *more):
        print_remark(remark)
    print_line(snippet.text)
