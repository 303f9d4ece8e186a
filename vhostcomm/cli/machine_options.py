"""Make a machine and its command from the flags of `vhostcomm run`."""

from __future__ import annotations

import os
import re
import uuid as uuids
from typing import Final

import attrs

from vhostcomm.cli.flags import parsed
from vhostcomm.cli.machine_flags import MachineFlags
from vhostcomm.config import values
from vhostcomm.config.address import Activated, Connect, ListenTcp
from vhostcomm.config.collecting import Mistakes
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import Config
from vhostcomm.errors import DiskError, QemuError, UsageError
from vhostcomm.launcher.hooks import EVENTS
from vhostcomm.launcher.launcher import Launch
from vhostcomm.linux.threads import in_thread
from vhostcomm.log.logs import Log
from vhostcomm.qemu.argv import build, disks_of
from vhostcomm.qemu.capabilities import Capabilities, Program
from vhostcomm.qemu.detect import find_capabilities
from vhostcomm.qemu.disk.contents import refuse_other
from vhostcomm.qemu.disk.image import Image, probe
from vhostcomm.qemu.disk.inspection import warning
from vhostcomm.qemu.disk.options import DiskOptions, parse, parse_shared, split
from vhostcomm.qemu.host_adaptation import HUGEPAGES_AUTO, check_hugepages, fitted
from vhostcomm.qemu.machine import (
    Accelerator,
    AnyDisk,
    AnyVchannel,
    BridgeNet,
    DirectKernel,
    Disk,
    Forward,
    Machine,
    Net,
    PasstNet,
    SerialFile,
    SerialTerminal,
    TapNet,
    UserNet,
    Vchannel,
    VhostDisk,
)
from vhostcomm.qemu.restart import RestartWhen

_DISKS: Final = "disks"
"""The place of a launcher's disks. They may be on a hanging file system, and a signal has to end the launcher."""


async def launch(flags: MachineFlags, extra: tuple[str, ...], config: Config, log: Log) -> Launch:
    """Detect QEMU's capabilities, and make the launch. A signal can end it even if the disks' file system hangs.

    Raises:
        UsageError: incompatible flags.
        QemuError: this QEMU lacks something.
        DiskError: an invalid disk.
    """
    if not (flags.boot or config.guests[0].machine.boot or flags.direct_kernel):
        raise UsageError(
            "nothing to start: give a directory of `vhostcomm install`, --boot or --direct-kernel, or set boot in "
            f"[guests.{values.key(config.guests[0].name)}.machine] of the file; "
            "vhostcomm-run@NAME.service reads these from RUN= in /etc/vhostcomm/run-NAME.env"
        )
    check_machines(config, flags)
    if (flags.initrd or flags.append) and not flags.direct_kernel:
        raise UsageError("--initrd and --append go with --direct-kernel")
    hooks = tuple(_hook(each) for each in flags.on or ())
    if not 1 <= flags.grace <= 86400:
        raise UsageError(f"--grace is {flags.grace:g}: expected seconds, from 1 to a day (86400)")
    address = config.guests[0].address
    if isinstance(address, ListenTcp | Activated):
        raise UsageError(f"--sock {address}: a launched guest has a unix socket: a path, or connect:PATH")
    try:
        channel = Vchannel(str(address.path), server=isinstance(address, Connect))
        # Check the machine before detecting QEMU, so that mistakes are reported at once.
        made = await in_thread(_DISKS, machine_of, flags, config, Accelerator.TCG, channel, extra)
        if made.hugepages and made.hugepages != HUGEPAGES_AUTO:
            await in_thread(_DISKS, check_hugepages, made.hugepages)
    except QemuError as error:
        raise UsageError(str(error)) from None
    can = await find_capabilities(Program(flags.qemu, tuple(flags.qemu_data or ())), try_kvm=flags.accel != "tcg")
    accelerator = _accelerator(flags.accel, can, log)
    made = attrs.evolve(made, accelerator=accelerator)
    machine, changes = await in_thread(_DISKS, fitted, made, can.io_uring)
    for change in changes:
        log.warning("machine changed", why=change)
    if machine.serial is None and flags.serial_console == "terminal":
        log.warning("no console in the background; --serial-console FILE saves its output")
    return Launch(machine, build(machine, can), config, flags.grace, RestartWhen(flags.restart), hooks)


def check_machines(config: Config, over: MachineFlags | None = None) -> None:
    """Check the machines in the files, except for their disks, which this host may lack.

    Args:
        config: the configuration.
        over: flags that override the files; overridden settings aren't checked.

    Raises:
        ConfigError: has the place of each invalid setting.
    """
    mistakes = Mistakes()
    flags = MachineFlags(cpus=1)
    keys = [each for each in ("disk_options", "memory", "cpu_model", "net", "forward") if not getattr(over, each, None)]
    for guest in (each for each in config.guests if each.machine_sources):
        valid = MachineSettings()
        for key in keys:
            more = attrs.evolve(valid, **{key: getattr(guest.machine, key)})
            alone = attrs.evolve(config, guests=(attrs.evolve(guest, machine=more),))
            try:
                machine_of(flags, alone, Accelerator.TCG, Vchannel(guest.name))
                valid = more
            except (QemuError, UsageError) as error:
                mistakes.add(f"{guest.machine_sources[key]}: {error}")
    mistakes.check()


async def disk_warning(flags: MachineFlags, config: Config) -> str:
    """Return what is wrong with the partitions of the guest's system disk; "" if the guest won't complain."""
    path, _ = split(flags.system or config.guests[0].machine.system)
    if not path:
        return ""
    if not path.startswith("naa."):  # QEMU opens it, by the target's name
        try:
            await in_thread(_DISKS, _image, path)
        except DiskError:
            return ""  # the launch has the same error
    return await in_thread(_DISKS, warning, path)


def _accelerator(accel: str, can: Capabilities, log: Log) -> Accelerator:
    if accel == "tcg":
        return Accelerator.TCG
    if not can.kvm_problem:
        return Accelerator.KVM
    if accel == "kvm":
        raise UsageError(f"--accel kvm: KVM does not work here: {can.kvm_problem}; --accel auto uses TCG")
    log.warning("KVM does not work here, using TCG, which is much slower", why=can.kvm_problem)
    return Accelerator.TCG


def machine_of(
    flags: MachineFlags, config: Config, accelerator: Accelerator, channel: AnyVchannel, extra: tuple[str, ...] = ()
) -> Machine:
    """Make the machine that the flags, and for missing ones the guest's settings, describe.

    Args:
        flags: the machine's flags.
        config: the configuration with the guest alone.
        accelerator: instead of `flags.accel`.
        channel: the vchannel's socket.
        extra: QEMU's own arguments.

    Raises:
        UsageError: incompatible flags.
        QemuError: an invalid value.
        DiskError: an invalid disk.
    """
    guest, settings = config.guests[0], config.guests[0].machine
    boot, system = flags.boot or settings.boot, flags.system or settings.system
    shared = parse_shared(flags.disk_options or settings.disk_options)
    machine = Machine(
        name=guest.name,
        uuid=uuids.UUID(guest.identity.uuid),
        memory=(parsed(values.memory, "--memory", flags.memory, "2G") if flags.memory else settings.memory) >> 20,
        cpus=guest.identity.vcpus if flags.cpus is None else flags.cpus,
        cpu=flags.cpu_model or settings.cpu_model or None,
        accelerator=accelerator,
        machine_type=flags.machine,
        boot=_disk(boot, shared, snapshot=flags.snapshot) if boot else None,
        system=_disk(system, shared, snapshot=flags.snapshot) if system else None,
        data=tuple(_disk(each, shared, snapshot=flags.snapshot) for each in flags.data or settings.data),
        net=_net(flags, settings),
        mac=parsed(values.mac, "--mac", flags.mac, "02:11:32:00:00:01") if flags.mac else settings.mac or None,
        serial=parsed(_serial, "--serial-console", flags.serial_console),
        vchannel=channel,
        direct=DirectKernel(flags.direct_kernel, flags.initrd, flags.append) if flags.direct_kernel else None,
        hugepages=flags.hugepages or settings.hugepages or None,
        lock_memory=flags.lock_memory,
        no_reboot=flags.no_reboot,
        extra=extra,
    )
    images = [os.path.realpath(each.path) for _, _, each in disks_of(machine) if isinstance(each, Disk)]
    if not flags.snapshot and (twice := next((each for each in images if images.count(each) > 1), None)):
        raise UsageError(f"{twice}: given for two disks, but each disk needs its own image")
    return machine


def _disk(text: str, shared: DiskOptions, *, snapshot: bool) -> AnyDisk:
    if text.startswith("naa."):
        return VhostDisk(text)
    path, options = split(text)
    return Disk(path, _image(path).format, snapshot, parse(options, shared))


def _image(path: str) -> Image:
    image = probe(path)
    refuse_other(image)
    return image


def _net(flags: MachineFlags, settings: MachineSettings) -> Net | None:
    net = flags.net or settings.net or "user"
    kind, _, rest = net.partition("=")
    name, *options = rest.split(",")
    if options and kind != "tap":
        raise UsageError(f"--net {net}: only tap has settings after a comma")
    forwards = flags.forward
    if forwards is None:  # the file's forwards don't fit another network
        forwards = list(settings.forward) if flags.net in {None, "user", "passt"} else []
    if forwards and kind not in {"user", "passt"}:
        raise UsageError("--forward needs --net user or passt; with other networks, the guest has its own address")
    match kind, name:
        case "user", "":
            return UserNet(tuple(parsed(_forward, "--forward", each, "5000:5000") for each in forwards))
        case "passt", "":
            return PasstNet(tuple(parsed(_forward, "--forward", each, "5000:5000") for each in forwards))
        case "tap", str(interface) if interface:
            return _tap(net, interface, options)
        case "bridge", str(bridge) if bridge:
            return BridgeNet(bridge)
        case "none", "":
            return None
        case _:
            raise UsageError(
                f"--net {net}: expected user, passt, tap=INTERFACE[,vhost=on|off][,queues=N], bridge=BRIDGE or none"
            )


def _tap(net: str, interface: str, settings: list[str]) -> TapNet:
    vhost: bool | None = None
    queues: int | None = None
    for setting in settings:
        match setting.partition("="):
            case "vhost", "=", ("on" | "off") as word:
                vhost = word == "on"
            case "queues", "=", number if number.isascii() and number.isdigit():
                queues = int(number)
            case _:
                raise UsageError(f"--net {net}: {setting!a}; a tap has vhost=on, vhost=off and queues=N")
    return TapNet(interface, vhost, queues)


def _forward(text: str) -> Forward:
    match = re.fullmatch(r"(?:(tcp|udp):)?(?:([0-9.]+):)?([0-9]{1,5}):([0-9]{1,5})", text)
    if not match:
        raise ValueError("expected [udp:][ADDRESS:]PORT:GUESTPORT")
    return Forward(int(match[3]), int(match[4]), match[1] or "tcp", match[2] or "127.0.0.1")


def _serial(text: str) -> SerialTerminal | SerialFile | None:
    match text:
        case "terminal" if _in_background():
            # QEMU has its own session: it would read the terminal together with the shell.
            return None
        case "terminal":
            return SerialTerminal()
        case "none":
            return None
        case _:
            return SerialFile(text)


def _in_background() -> bool:
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # no terminal
        return False


def _hook(text: str) -> tuple[str, str]:
    event, equals, program = text.partition("=")
    if not equals or not program or event not in EVENTS:
        raise UsageError(f"--on {text}: expected EVENT=PROGRAM, where EVENT is one of {', '.join(EVENTS)}")
    return event, program
