"""`vhostcomm run`, which is also `vdsm_run.py`."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from typing import Annotated, Any

from cyclopts import Parameter

from vhostcomm.cli.cluster import HostOptions
from vhostcomm.cli.flags import ConfigFiles, Place, Quiet, SettingFlags, Verbose, given, parsed
from vhostcomm.cli.guest_folder import configured, files_of
from vhostcomm.cli.machine_flags import MACHINE, SUPERVISION, MachineFlags
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.config import values
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError


def run(
    *words: Annotated[
        str,
        Parameter(
            name="directory",
            help="A directory that `vhostcomm install` made; its vhostcomm.toml has the guest. After `--`: QEMU arguments.",
        ),
    ],
    of_machine: MachineFlags | None = None,
    guest: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            group=MACHINE,
            help="The guest's name; by default that of the only guest in --config, else vdsm.",
        ),
    ] = None,
    name: Annotated[str | None, Parameter(show=False, help="An older name of --guest.")] = None,
    uuid: Annotated[str | None, Parameter(show=False, help="An older name of --guest-uuid.")] = None,
    sock: Annotated[
        Place | None,
        Parameter(
            metavar="SOCK",
            group=MACHINE,
            help="The vchannel's socket: a path, a UUID (a socket of that name in the runtime directory), or connect:PATH, "
            "where QEMU listens. By default a temporary one.",
        ),
    ] = None,
    dry_run: Annotated[bool, Parameter(group=SUPERVISION, help="Print QEMU's command and exit.")] = False,
    config: ConfigFiles = None,
    settings: SettingFlags = None,
    cluster: HostOptions | None = None,
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
    or saved; 78 a directory or group is missing or can't be used.

    For example:

        vhostcomm run nas/                                  # from vhostcomm install
        vhostcomm run --boot boot.img --system system.img   # other disks
        vhostcomm run nas/ --forward 5000:5000              # DSM at port 5000
        vhostcomm run nas/ --dry-run                        # print QEMU's command
        vhostcomm run nas/ -- -vnc :1                       # with a flag of QEMU
    """
    machine = of_machine or MachineFlags()
    flags = given(settings, verbose=verbose, quiet=quiet)
    if uuid is not None:
        if "guest-uuid" in flags:
            raise UsageError("--uuid is an older name of --guest-uuid: give one of them")
        flags["guest-uuid"] = uuid
    if machine.cpus is not None:
        flags.setdefault("vcpus", str(machine.cpus))
    extra = tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()
    if len(words) - len(extra) > 1:
        raise UsageError(f"{words[1]}: arguments for QEMU come after --; for example: vhostcomm run … -- -s -S")
    folder = words[0] if len(words) > len(extra) else None
    config = files_of(folder, config, remark=", and arguments of QEMU come after --")
    if name is not None and guest is not None:
        raise UsageError("--name is an older name of --guest: give one of them")
    guest = guest if name is None else name
    if guest is not None:
        parsed(values.name, "--guest", guest)
    with configured(config, guest, sock, flags) as loaded:
        return _launch(machine, extra, loaded, cluster or HostOptions(), dry_run=dry_run)


def _launch(flags: MachineFlags, extra: tuple[str, ...], loaded: Config, cluster: HostOptions, *, dry_run: bool) -> int:
    import trio

    from vhostcomm.cli import machine_options
    from vhostcomm.launcher.launcher import Launcher
    from vhostcomm.log.logs import FLUSH_TIMEOUT, start_log
    from vhostcomm.qemu.argv import format_command
    from vhostcomm.qemu.ending import EndKind
    from vhostcomm.qemu.net_argv import after_passt
    from vhostcomm.qemu.ports import port_problem
    from vhostcomm.systemd.journal import error_text
    from vhostcomm.systemd.notify import Notifier

    notifier = Notifier.of_environment()
    log, sink = start_log(loaded.service.log_level, loaded.service.log_format, sys.stderr)
    try:
        if dry_run:
            printed = trio.run(machine_options.launch, flags, extra, loaded, log)
            print_line(after_passt(printed.machine, format_command(printed.argv)))
            return 0
        launch: Any = None
        lock = cluster.lock(loaded.guests[0].name, log)

        async def warned_of() -> Any:
            if warning := await machine_options.disk_warning(flags, loaded):
                print_error(f"vhostcomm: warning: {warning}")
            return await machine_options.launch(flags, extra, loaded, log)

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
    if ending.exit_code:
        print_error(error_text(f"vhostcomm: {ending.report()}"))
    if ending.kind is EndKind.FAILED_TO_START and (problem := port_problem(launch.machine.net)):
        print_error(f"vhostcomm: {problem}")  # another process bound the port meanwhile
    return int(ending.exit_code)


async def _unless_stopped(work: Any, *args: Any) -> Any:
    """Run a function; return None if a signal stops it."""
    import trio

    from vhostcomm.linux.signals import handled_signals

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
