"""`vhostcomm snippet`: what to paste elsewhere, made from the configuration. One small function per kind."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from attrs import frozen
from cyclopts import App, Group, Parameter

from vhostcomm.cli.flags import ConfigFile, GuestFlags, HostFlags, Place, ServeFlags, Socks, given
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.config import Config, GuestConfig
from vhostcomm.errors import ConfigError, QemuError, UsageError
from vhostcomm.load import load

if TYPE_CHECKING:
    from vhostcomm.snippet import Snippet, Spelling

app = App(
    name="snippet",
    help="Print what to paste elsewhere for a guest, made from the effective configuration.",
)

_QEMU = Group("The QEMU", sort_key=0)
_MACHINE = Group("The machine", sort_key=0)
_HOOKSCRIPT = Group("The hookscript", sort_key=0)


@frozen
class Which:
    """Which guest.

    Args:
        name: its name in the configuration.
        sock: guests given as flags.
        config: the file that describes guests.
        host: the host's identity.
        guest: the guest's.
        service: how guests are served.
    """

    name: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            name="--guest",
            group=Group("Guests", sort_key=1),
            help="The guest's name in the configuration; may be left out where there is one guest.",
        ),
    ] = None
    sock: Socks = None
    config: ConfigFile = None
    host: HostFlags = None
    guest: GuestFlags = None
    service: ServeFlags = None

    def find(self) -> tuple[Config, GuestConfig]:
        """The effective configuration, and the guest in it.

        Raises:
            ConfigError: there is no such guest.
        """
        config = load(self.config, socks=self.sock or (), flags=given(self.host, self.guest, self.service))
        for warning in config.warnings:
            print_error(f"vhostcomm: {warning}")
        names = [each.name for each in config.guests]
        if not names:
            raise ConfigError(
                f"{self.config or 'the configuration'} has no guest{f' {self.name!r}' if self.name else ''}: "
                f"give --config with a guest in it, or --sock {self.name or 'nas'}=PATH"
            )
        if self.name is None and len(names) > 1:
            raise ConfigError(f"name one of the guests with --guest: {', '.join(names)}")
        for each in config.guests:
            if self.name in (None, each.name):
                return config, each
        raise ConfigError(
            f"the configuration has no guest {self.name!r}, but {', '.join(names)}: choose one of them with --guest, "
            f"or add [guests.{self.name}] to the file" + (f" {self.config}" if self.config else " of --config")
        )


@frozen
class WhichQemu:
    """Which QEMU arguments are spelt for.

    Args:
        qemu: one to ask.
        qemu_version: of one that isn't here.
    """

    qemu: Annotated[
        str | None,
        Parameter(
            metavar="PROGRAM",
            group=_QEMU,
            help="The QEMU to spell for, asked itself; qemu-system-x86_64 if it is installed.",
        ),
    ] = None
    qemu_version: Annotated[
        str | None,
        Parameter(
            metavar="VERSION", group=_QEMU, help="Spell for a QEMU of this version, which isn't here; such as 7.2."
        ),
    ] = None

    def spelling(self) -> Spelling:
        """How it is spelt.

        Raises:
            UsageError: both are given.
            QemuError: this QEMU can't be asked, or can't do it.
        """
        from vhostcomm.snippet import Spelling

        if self.qemu and self.qemu_version:
            raise UsageError("--qemu asks a QEMU, --qemu-version does without: give one")
        if self.qemu_version:
            return Spelling.of_version(self.qemu_version)
        if self.qemu is None and shutil.which("qemu-system-x86_64") is None:
            unasked = Spelling.unasked()
            return Spelling(unasked.reconnects, f"not installed here, so it is {unasked.why}")
        return _asked(self.qemu or "qemu-system-x86_64")


Guest: TypeAlias = Annotated[Which | None, Parameter(name="*")]
Qemu: TypeAlias = Annotated[WhichQemu | None, Parameter(name="*")]


@app.command
def qemu(
    *,
    which: Guest = None,
    spelt_for: Qemu = None,
    bus: Annotated[
        Literal["pci.0", "pcie.0"], Parameter(group=_QEMU, help="The machine's; pcie.0 with q35.")
    ] = "pci.0",
) -> None:
    """QEMU's arguments of the vchannel, to paste behind its command."""
    from vhostcomm.snippet.qemu import arguments

    _, guest = (which or Which()).find()
    _show(arguments(guest, (spelt_for or WhichQemu()).spelling(), bus=bus))


@app.command
def libvirt(
    *,
    which: Guest = None,
    domain: Annotated[
        bool, Parameter(negative=(), group=_MACHINE, help="A whole domain, like the genuine host's; with --boot.")
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
        Parameter(metavar="N", group=_MACHINE, help="Virtual CPUs; as many as the guest is told by default."),
    ] = None,
    accel: Annotated[Literal["kvm", "tcg"], Parameter(group=_MACHINE, help="What executes the guest.")] = "kvm",
    machine: Annotated[str, Parameter(metavar="TYPE", group=_MACHINE, help="QEMU's machine type.")] = "pc",
    net: Annotated[
        str,
        Parameter(metavar="NET", group=_MACHINE, help="network=LIBVIRTS, user, tap=INTERFACE, bridge=BRIDGE or none."),
    ] = "network=default",
    mac: Annotated[str | None, Parameter(metavar="MAC", group=_MACHINE, help="The guest's MAC address.")] = None,
    serial_console: Annotated[
        str,
        Parameter(metavar="CONSOLE", group=_MACHINE, help="pty, for virsh console, or a file that it is appended to."),
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
    """The XML of libvirt's channel and its controller, to paste into a domain; with --domain a whole domain."""
    config, guest = (which or Which()).find()
    if not domain:
        from vhostcomm.snippet.libvirt import devices

        if boot or system or data:
            raise UsageError("disks go into a whole domain: add --domain")
        _show(devices(guest))
        return
    if not boot:
        raise UsageError("--domain describes a machine that boots: give --boot, and --system and --data as for run")
    from vhostcomm.cli.assemble import Wanted, machine_of
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
        )
    )


@app.command
def proxmox(
    *,
    vmid: Annotated[int, Parameter(metavar="N", group=_QEMU, help="The VM's number.")],
    which: Guest = None,
    spelt_for: Qemu = None,
) -> None:
    """Commands for a Proxmox VE host: the VM's args with a socket of its own, its disks' places, its hookscript."""
    from vhostcomm.snippet.proxmox import commands

    _, guest = (which or Which()).find()
    _show(commands(guest, vmid, (spelt_for or WhichQemu()).spelling()))


@app.command
def hookscript(
    *,
    which: Guest = None,
    wait: Annotated[
        int,
        Parameter(
            metavar="SECONDS",
            group=_HOOKSCRIPT,
            help="Seconds for the guest's own power-off; Proxmox VE gives a shutdown 60.",
        ),
    ] = 50,
    unit: Annotated[
        str,
        Parameter(
            metavar="UNIT", group=_HOOKSCRIPT, help="The daemon's service, started where nobody serves; empty for none."
        ),
    ] = "vhostcomm.service",
    program: Annotated[
        str | None,
        Parameter(
            metavar="PROGRAM", group=_HOOKSCRIPT, help="vhostcomm's executable, for the script; this one by default."
        ),
    ] = None,
) -> None:
    """A hookscript of Proxmox VE: starts no VM that nobody serves, stops it by its own power-off."""
    from vhostcomm.address import control_address
    from vhostcomm.snippet.hookscript import script

    config, guest = (which or Which()).find()
    try:
        control = control_address(config.service.control)
    except ValueError as error:
        raise UsageError(f"--control: {error}") from None
    _show(script(guest, control, program=program or _program(), unit=unit, wait=wait))


@app.command
def compose(
    *,
    which: Guest = None,
    qemu_version: Annotated[
        str | None,
        Parameter(metavar="VERSION", group=_QEMU, help="The version of the QEMU in the other container; such as 7.2."),
    ] = None,
) -> None:
    """A compose file: a container that serves the guest, beside the one with its QEMU."""
    from vhostcomm.snippet import Spelling
    from vhostcomm.snippet.compose import compose as file

    config, guest = (which or Which()).find()
    _show(file(config, guest, Spelling.of_version(qemu_version) if qemu_version else Spelling.unasked()))


def _show(snippet: Snippet) -> None:
    for remark in snippet.remarks:
        print_error(f"vhostcomm: {remark}")
    print_line(snippet.text)


def _asked(path: str) -> Spelling:
    """How the QEMU there spells it, by its own word."""
    import trio

    from vhostcomm.cli.serve import first_error
    from vhostcomm.qemu import Program, find_capabilities
    from vhostcomm.qemu.argv import CHANNEL_DRIVERS
    from vhostcomm.snippet import Spelling

    async def ask() -> Spelling:
        can = await find_capabilities(Program(path), try_kvm=False)
        if missing := [each for each in CHANNEL_DRIVERS if each not in can.devices]:
            raise QemuError(f"{path} has no device {missing[0]}; take a QEMU built for x86_64 with it")
        if can.reconnects is None:
            raise QemuError(f"{path} can't reconnect a socket: take QEMU 7.2 or later")
        return Spelling(can.reconnects, f"spelt for {path}, which is {can.version}")

    try:
        return trio.run(ask)
    except BaseExceptionGroup as group:
        raise first_error(group) from None


def _program() -> str:
    """The program that runs now, as a script can run it."""
    started = Path(sys.argv[0])
    if started.name == "vhostcomm" and os.access(started, os.X_OK):
        return str(started.absolute())
    return shutil.which("vhostcomm") or "vhostcomm"
