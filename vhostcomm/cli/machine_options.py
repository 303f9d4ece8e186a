"""Make a machine and its command from the flags of `vhostcomm run`."""

from __future__ import annotations

import os
import re
import uuid as uuids
from typing import Final

from attrs import frozen

from vhostcomm.config import values
from vhostcomm.config.address import Activated, Connect, ListenTcp
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError
from vhostcomm.launcher.hooks import EVENTS
from vhostcomm.launcher.launcher import Launch
from vhostcomm.log.logs import Log
from vhostcomm.qemu import (
    Accelerator,
    AnyDisk,
    AnyVchannel,
    BridgeNet,
    Capabilities,
    DirectKernel,
    Disk,
    Forward,
    Machine,
    Net,
    PasstNet,
    Program,
    RestartPolicy,
    RestartWhen,
    SerialFile,
    SerialTerminal,
    TapNet,
    UserNet,
    Vchannel,
    VhostDisk,
    build,
    find_capabilities,
)
from vhostcomm.qemu.disk.image import image_format
from vhostcomm.qemu.disk.inspection import warning
from vhostcomm.qemu.disk.options import parse, parse_shared, split
from vhostcomm.qemu.fitting import fitted
from vhostcomm.threads import in_thread

_DISKS: Final = "disks"
"""The place of a launcher's disks. They may be on a hanging file system, and a signal has to end the launcher."""


@frozen
class Wanted:
    """The flags of `run`, as given."""

    boot: str | None
    system: str | None
    data: tuple[str, ...]
    snapshot: bool
    name: str
    memory: str
    cpus: int
    accel: str
    machine: str
    net: str
    forward: tuple[str, ...]
    mac: str | None
    serial_console: str
    qemu: str
    qemu_data: tuple[str, ...]
    direct_kernel: str | None
    initrd: str | None
    append: str
    hugepages: str | None
    lock_memory: bool
    no_reboot: bool
    grace: float
    restart: str
    on: tuple[str, ...]
    extra: tuple[str, ...]
    disk_options: str = ""
    cpu_model: str | None = None


async def launch(wanted: Wanted, config: Config, log: Log) -> Launch:
    """Detect QEMU's capabilities, and make the launch. A signal can end it even if the disks' file system hangs.

    Raises:
        UsageError: incompatible flags.
        QemuError: this QEMU lacks something.
        DiskError: an invalid disk.
    """
    if not (wanted.boot or wanted.direct_kernel):
        raise UsageError(
            "nothing to start: give a folder of `vhostcomm install`, --boot or --direct-kernel; "
            "vhostcomm-run@NAME.service reads them from RUN= in /etc/vhostcomm/run-NAME.env"
        )
    if (wanted.initrd or wanted.append) and not wanted.direct_kernel:
        raise UsageError("--initrd and --append go with --direct-kernel")
    hooks = tuple(_hook(each) for each in wanted.on)
    if not 1 <= wanted.grace <= 86400:
        raise UsageError(f"--grace is {wanted.grace:g}: expected seconds, from 1 to a day (86400)")
    address = config.guests[0].address
    if isinstance(address, ListenTcp | Activated):
        raise UsageError(f"--sock {address}: a launched guest has a unix socket: a path, or connect:PATH")
    try:
        channel = Vchannel(str(address.path), server=isinstance(address, Connect))
        # Check the machine before detecting QEMU, so that mistakes are reported at once.
        await in_thread(_DISKS, machine_of, wanted, config, Accelerator.TCG, channel)
    except QemuError as error:
        raise UsageError(str(error)) from None
    can = await find_capabilities(Program(wanted.qemu, wanted.qemu_data), try_kvm=wanted.accel != "tcg")
    accelerator = _accelerator(wanted.accel, can, log)
    made = await in_thread(_DISKS, machine_of, wanted, config, accelerator, channel)
    machine, changes = await in_thread(_DISKS, fitted, made, can.io_uring)
    for change in changes:
        log.warning("machine changed", why=change)
    if machine.serial is None and wanted.serial_console == "terminal":
        log.warning("no console in the background; --serial-console FILE saves its output")
    return Launch(machine, build(machine, can), config, wanted.grace, RestartPolicy(RestartWhen(wanted.restart)), hooks)


async def disk_warnings(wanted: Wanted) -> list[str]:
    """Return what the guest will print about its system disk's partitions, if it will complain."""
    if not wanted.system:
        return []
    path, _ = split(wanted.system)
    found = await in_thread(_DISKS, warning, path)
    return [f"vhostcomm: {line}" if line.startswith(path) else f"vhostcomm: {path}: {line}" for line in found]


def _accelerator(accel: str, can: Capabilities, log: Log) -> Accelerator:
    if accel == "tcg":
        return Accelerator.TCG
    if not can.kvm_problem:
        return Accelerator.KVM
    if accel == "kvm":
        raise UsageError(f"--accel kvm: KVM does not work here: {can.kvm_problem}; --accel auto uses TCG")
    log.warning("KVM does not work here, using TCG, which is much slower", why=can.kvm_problem)
    return Accelerator.TCG


def machine_of(wanted: Wanted, config: Config, accelerator: Accelerator, channel: AnyVchannel) -> Machine:
    """Make the machine that the flags describe.

    Raises:
        UsageError: incompatible flags.
        QemuError: an invalid value.
        DiskError: an invalid disk.
    """
    guest = config.guests[0]
    try:
        memory = values.size(wanted.memory if not wanted.memory.isdigit() else f"{wanted.memory}M") >> 20
    except ValueError as error:
        raise UsageError(f"--memory {wanted.memory}: {error}; for example: --memory 2G") from None
    return Machine(
        name=wanted.name,
        uuid=uuids.UUID(guest.identity.uuid),
        memory=memory,
        cpus=wanted.cpus,
        cpu=wanted.cpu_model,
        accelerator=accelerator,
        machine_type=wanted.machine,
        boot=_disk(wanted.boot, wanted),
        system=_disk(wanted.system, wanted),
        data=tuple(found for each in wanted.data if (found := _disk(each, wanted))),
        net=_net(wanted),
        mac=_mac(wanted.mac),
        serial=_serial(wanted.serial_console),
        vchannel=channel,
        direct=DirectKernel(wanted.direct_kernel, wanted.initrd, wanted.append) if wanted.direct_kernel else None,
        hugepages=wanted.hugepages,
        lock_memory=wanted.lock_memory,
        no_reboot=wanted.no_reboot,
        extra=wanted.extra,
    )


def _disk(text: str | None, wanted: Wanted) -> AnyDisk | None:
    if text is None:
        return None
    if text.startswith("naa."):
        return VhostDisk(text)
    path, options = split(text)
    how = parse(options, parse_shared(wanted.disk_options))
    return Disk(path, image_format(path), wanted.snapshot, how)


def _net(wanted: Wanted) -> Net | None:
    kind, _, rest = wanted.net.partition("=")
    name, *settings = rest.split(",")
    if settings and kind != "tap":
        raise UsageError(f"--net {wanted.net}: only tap has settings after a comma")
    if wanted.forward and kind not in {"user", "passt"}:
        raise UsageError("--forward needs --net user or passt; with other networks, the guest has its own address")
    match kind, name:
        case "user", "":
            return UserNet(tuple(map(_forward, wanted.forward)))
        case "passt", "":
            return PasstNet(tuple(map(_forward, wanted.forward)))
        case "tap", str(interface) if interface:
            return _tap(wanted.net, interface, settings)
        case "bridge", str(bridge) if bridge:
            return BridgeNet(bridge)
        case "none", "":
            return None
        case _:
            pass
    raise UsageError(
        f"--net {wanted.net}: expected user, passt, tap=INTERFACE[,vhost=on|off][,queues=N], bridge=BRIDGE or none"
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
        raise UsageError(f"--forward {text}: expected [udp:][ADDRESS:]PORT:GUESTPORT; for example: --forward 5000:5000")
    return Forward(int(match[3]), int(match[4]), match[1] or "tcp", match[2] or "127.0.0.1")


def _mac(text: str | None) -> str | None:
    try:
        return None if text is None else values.mac(text)
    except ValueError as error:
        raise UsageError(f"--mac {text}: {error}; for example: --mac 02:11:32:00:00:01") from None


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
