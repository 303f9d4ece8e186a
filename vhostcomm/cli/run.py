"""`vhostcomm run`, which is also `vdsm_run.py`."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from vhostcomm.cli.cluster import HostOptions
from vhostcomm.cli.flags import ConfigFiles, GuestFlags, HostFlags, Place, Quiet, ServeFlags, Verbose, given
from vhostcomm.cli.guest_folder import configured, files_of
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.config import values
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError

_MACHINE = Group("The machine", sort_key=1)
_SUPERVISION = Group("Supervision", sort_key=5)


def _disk(help: str) -> Any:
    return Parameter(
        negative=(),
        group=_MACHINE,
        metavar="DISK",
        help=help + " A raw or qcow2 image, a block device, or naa.… for vhost-scsi; options follow a comma.",
    )


def run(
    *words: Annotated[
        str,
        Parameter(
            name="folder",
            help="A folder that `vhostcomm install` made; its vhostcomm.toml has the guest. After `--`: QEMU arguments.",
        ),
    ],
    boot: Annotated[Place | None, _disk("The boot disk (synoboot), at PCI slot 0xa.")] = None,
    system: Annotated[Place | None, _disk("The system disk (sda), at slot 0xb.")] = None,
    data: Annotated[list[Place] | None, _disk("A data disk (sdb, sdc …), from slot 0xc; may be repeated.")] = None,
    disk_options: Annotated[
        str | None,
        Parameter(
            metavar="OPTIONS",
            group=_MACHINE,
            help="Options of all disks, NAME=VALUE,…: cache, aio (native, io_uring, threads), discard, detect-zeroes, "
            "rotation-rate, iothread; and serial of one disk.",
        ),
    ] = None,
    snapshot: Annotated[
        bool, Parameter(negative=(), group=_MACHINE, help="Discard all writes to the disks at the end.")
    ] = False,
    guest_name: Annotated[
        str | None,
        Parameter(
            name="--guest",
            metavar="NAME",
            group=_MACHINE,
            help="The guest's name; by default that of the only guest in --config, else vdsm.",
        ),
    ] = None,
    name: Annotated[str | None, Parameter(show=False, help="An older name of --guest.")] = None,
    uuid: Annotated[str | None, Parameter(show=False, help="An older name of --guest-uuid.")] = None,
    memory: Annotated[
        str | None, Parameter(metavar="SIZE", group=_MACHINE, help="Memory, such as 2G; 1G by default.")
    ] = None,
    cpus: Annotated[
        int | None,
        Parameter(show=False, help="An older name of --vcpus, which the environment and files don't override."),
    ] = None,
    accel: Annotated[
        Literal["auto", "kvm", "tcg"],
        Parameter(group=_MACHINE, help="auto uses KVM if it works, else TCG."),
    ] = "auto",
    cpu_model: Annotated[
        str | None,
        Parameter(
            metavar="MODEL", group=_MACHINE, help="QEMU's processor model; by default the host's with KVM, else max."
        ),
    ] = None,
    machine: Annotated[str, Parameter(metavar="TYPE", group=_MACHINE, help="QEMU's machine type.")] = "pc",
    net: Annotated[
        str | None,
        Parameter(
            metavar="NET",
            group=_MACHINE,
            help="The guest's network: user (the default), passt, tap=INTERFACE[,vhost=on|off][,queues=N], bridge=BRIDGE or none.",
        ),
    ] = None,
    forward: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            metavar="FORWARD",
            group=_MACHINE,
            help="Forward a port of the host, with --net user or passt: [udp:][ADDRESS:]PORT:GUESTPORT, such as 5000:5000. May be repeated.",
        ),
    ] = None,
    mac: Annotated[str | None, Parameter(metavar="MAC", group=_MACHINE, help="The guest's MAC address.")] = None,
    serial_console: Annotated[
        Place,
        Parameter(
            metavar="CONSOLE",
            group=_MACHINE,
            help="The guest's console: terminal (this one), none, or a file to append to.",
        ),
    ] = "terminal",
    qemu: Annotated[
        Place, Parameter(metavar="PROGRAM", group=_MACHINE, help="The QEMU to run.")
    ] = "qemu-system-x86_64",
    qemu_data: Annotated[
        list[Place] | None,
        Parameter(
            negative=(), metavar="FOLDER", group=_MACHINE, help="A folder with QEMU's firmware (-L); may be repeated."
        ),
    ] = None,
    direct_kernel: Annotated[
        Place | None,
        Parameter(metavar="FILE", group=_MACHINE, help="Boot this kernel instead of the boot disk's loader."),
    ] = None,
    initrd: Annotated[
        Place | None, Parameter(metavar="FILE", group=_MACHINE, help="The initial RAM disk for --direct-kernel.")
    ] = None,
    append: Annotated[
        str,
        Parameter(
            metavar="TEXT",
            group=_MACHINE,
            help="The kernel's command line, with --direct-kernel.",
            allow_leading_hyphen=True,
        ),
    ] = "",
    hugepages: Annotated[
        Place | None,
        Parameter(
            metavar="FOLDER",
            group=_MACHINE,
            help="A hugetlbfs folder for the guest's memory; auto finds one with room, or goes without.",
        ),
    ] = None,
    lock_memory: Annotated[
        bool, Parameter(negative=(), group=_MACHINE, help="Keep the guest's memory from being swapped.")
    ] = False,
    sock: Annotated[
        Place | None,
        Parameter(
            metavar="SOCK",
            group=_MACHINE,
            help="The vchannel's socket: a path, a UUID (a socket of that name in the runtime directory), or connect:PATH, "
            "where QEMU listens. By default a temporary one.",
        ),
    ] = None,
    no_reboot: Annotated[
        bool, Parameter(negative=(), group=_SUPERVISION, help="End QEMU when the guest reboots.")
    ] = False,
    grace: Annotated[
        float,
        Parameter(
            metavar="SECONDS",
            group=_SUPERVISION,
            help="Seconds for a stop: the guest's own power-off, the power button, quit, SIGTERM, SIGKILL.",
        ),
    ] = 90.0,
    restart: Annotated[
        Literal["no", "on-failure", "always"],
        Parameter(group=_SUPERVISION, help="When to start QEMU again; never after the guest's own shutdown."),
    ] = "no",
    on: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            metavar="EVENT=PROGRAM",
            group=_SUPERVISION,
            help="Run PROGRAM at ready, stopping, stopped, rebooted or crashed, with VHOSTCOMM_HOOK_… in its environment.",
        ),
    ] = None,
    dry_run: Annotated[bool, Parameter(negative=(), group=_SUPERVISION, help="Print QEMU's command and exit.")] = False,
    config: ConfigFiles = None,
    host: HostFlags = None,
    guest: GuestFlags = None,
    service: ServeFlags = None,
    cluster: Annotated[HostOptions | None, Parameter(name="*")] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Run a guest: start its QEMU, answer its questions, and stay until QEMU ends.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the guest within --grace: by its own power-off, also if it is still booting, then by the
    power button, QEMU's quit, SIGTERM and SIGKILL. A second Ctrl-C skips to the next step. SIGINT and SIGHUP stay ignored if
    they were ignored at the start (nohup, a script's &). SIGUSR1 reopens the recording if its file was renamed or deleted.
    QEMU never outlives this process. The log goes to standard error; `serve` writes it to standard output.

    Exit status: 0 the guest powered itself off, or was stopped; 1 an error; 2 a mistake in the command line; 3 QEMU did not
    start; 4 the guest panicked; 5 QEMU crashed; 6 another program ended QEMU through QMP; 7 another program ended it by a
    signal; 8 it had to be killed; 9 it was stopped while paused, and the guest did not shut down; 10 the guest was migrated
    or saved; 78 a folder or group is missing or can't be used.

    For example: a guest that `vhostcomm install` made; DSM at the host's port 5000; QEMU's command; a flag of QEMU.

        vhostcomm run nas/
        vhostcomm run --boot boot.img --system system.img --forward 5000:5000
        vhostcomm run --boot boot.img --system system.img --dry-run
        vhostcomm run --boot boot.img --system system.img -- -vnc :1
    """
    from vhostcomm.cli import machine_options

    flags = given(host, guest, service, verbose=verbose, quiet=quiet)
    if uuid is not None:
        if "guest-uuid" in flags:
            raise UsageError("--uuid is an older name of --guest-uuid: give one of them")
        flags["guest-uuid"] = uuid
    if cpus is not None:
        flags.setdefault("vcpus", str(cpus))
    extra = tuple(_after_dashes())
    if len(words) - len(extra) > 1:
        raise UsageError(f"{words[1]}: arguments for QEMU come after --; for example: vhostcomm run … -- -s -S")
    folder = words[0] if len(words) > len(extra) else None
    config = files_of(folder, config, remark=", and arguments of QEMU come after --")
    if name is not None and guest_name is not None:
        raise UsageError("--name is an older name of --guest: give one of them")
    guest_name = guest_name if name is None else name
    if guest_name is not None:
        try:
            values.name(guest_name)
        except ValueError as error:
            raise UsageError(f"--guest {guest_name}: {error}") from None
    with configured(config, guest_name, sock, flags) as loaded:
        guest_found, said = loaded.guests[0], loaded.guests[0].machine
        if forward is None:  # the file's forwards don't fit another network
            forward = list(said.forward) if net in {None, "user", "passt"} else []
        wanted = machine_options.Wanted(
            boot or said.boot or None, system or said.system or None, tuple(data or said.data), snapshot, guest_found.name,
            memory or (f"{said.memory >> 20}M" if said.memory else "1G"), cpus or guest_found.identity.vcpus, accel,
            machine, net or said.net or "user", tuple(forward), mac or said.mac or None, serial_console, qemu,
            tuple(qemu_data or ()), direct_kernel, initrd, append, hugepages or said.hugepages or None, lock_memory,
            no_reboot, grace, restart, tuple(on or ()), extra, disk_options or said.disk_options,
            cpu_model or said.cpu_model or None,
        )  # fmt: skip
        return _launch(wanted, loaded, cluster or HostOptions(), dry_run=dry_run)


def _after_dashes() -> list[str]:
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []


def _launch(wanted: Any, loaded: Config, cluster: HostOptions, *, dry_run: bool) -> int:
    import trio

    from vhostcomm.cli import machine_options
    from vhostcomm.launcher.launcher import Launcher, tell_report
    from vhostcomm.log.logs import FLUSH_TIMEOUT, start_log
    from vhostcomm.qemu import EndKind, format_command
    from vhostcomm.qemu.net_argv import after_passt
    from vhostcomm.qemu.ports import port_problem
    from vhostcomm.systemd.notify import Notifier

    notifier = Notifier.of_environment()
    log, sink = start_log(loaded.service.log_level, loaded.service.log_format, sys.stderr)
    try:
        if dry_run:
            printed = trio.run(machine_options.launch, wanted, loaded, log)
            print_line(after_passt(printed.machine, format_command(printed.argv)))
            return 0
        launch: Any = None
        lock = cluster.lock(wanted.name, log)

        async def warned_of() -> Any:
            for line in await machine_options.disk_warnings(wanted):
                print_error(line)
            return await machine_options.launch(wanted, loaded, log)

        async def main() -> Any:
            nonlocal launch
            launch = await _unless_stopped(warned_of)
            if launch and (problem := port_problem(launch.machine.net)):
                raise QemuError(problem)
            async with lock or nullcontext():
                if not launch or (lock and not await _unless_stopped(lock.take)):
                    return None
                return await Launcher(launch, log, notifier, lock).run()

        ending = trio.run(main)
        if ending is None:
            log.info("stopped before QEMU was started")
            return 0
    finally:
        sink.close(FLUSH_TIMEOUT)
    tell_report(ending)
    if ending.kind is EndKind.FAILED_TO_START and (problem := port_problem(launch.machine.net)):
        print_error(f"vhostcomm: {problem}")  # another process bound the port meanwhile
    return int(ending.exit_code)


async def _unless_stopped(work: Any, *args: Any) -> Any:
    """Run a function; return None if a signal stops it."""
    import trio

    from vhostcomm.signals import handled_signals

    result = None
    with trio.open_signal_receiver(*handled_signals()) as signals:
        async with trio.open_nursery() as nursery:

            async def cancel_on_signal() -> None:
                async for number in signals:
                    if number != signal.SIGUSR1:  # no recording is open yet
                        nursery.cancel_scope.cancel()

            nursery.start_soon(cancel_on_signal)
            result = await work(*args)
            nursery.cancel_scope.cancel()
    return result
