"""`qemu-host`: replaces the tool of that name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from vchannel import Command, HostCommand
from vhostcomm import __version__
from vhostcomm.cli import program
from vhostcomm.cli.output import print_error, print_line
from vhostcomm.config.models import Config
from vhostcomm.log.logs import FLUSH_TIMEOUT, Log, start_log
from vhostcomm.qemu_host.api import DEFAULT_TIMEOUT
from vhostcomm.qemu_host.flags import FLAGS, SCRIPT, SHOW_VERSION, config_of, help_text
from vhostcomm.qemu_host.goflags import parse

if TYPE_CHECKING:
    import trio

BOOT_QUESTIONS: Final = {
    HostCommand.GUEST_SERIAL,
    HostCommand.GUEST_UUID,
    HostCommand.CLUSTER_UUID,
    HostCommand.HOST_SERIAL,
}
"""Questions of a booting guest."""


STATUSES: Final = frozenset({0, 1, 2})
"""Documented exit statuses."""


def main() -> NoReturn:
    """Run the console script."""
    program.run("qemu-host", _run, STATUSES)


def _run() -> None:
    given, rest = parse(sys.argv[1:], FLAGS)
    if given.get("help") or given.get("h"):
        print_line(help_text().rstrip())
        return
    if given.get(SHOW_VERSION):
        print_line(f"vhostcomm {__version__}")
        return
    config = config_of(given)
    if rest:
        print_error(f"qemu-host: not a flag, ignored with all behind it: {rest[0]!a}")
    _serve(config, float(given.get("timeout", DEFAULT_TIMEOUT)), _places(given.get("script")))


def _places(script: str | None) -> tuple[Path, ...]:
    """Return where to look for the script: at the flag's path, else beside the called program and its link's target."""
    if script is not None:
        return (Path(script).absolute(),) if script else ()
    called = Path(sys.argv[0]).absolute()
    return tuple(dict.fromkeys(each.with_name(SCRIPT) for each in (called, called.resolve())))


def _serve(config: Config, timeout: float, places: Sequence[Path]) -> None:
    import trio

    from vhostcomm.daemon.daemon import Daemon
    from vhostcomm.qemu_host.trace import LineTrace
    from vhostcomm.systemd.notify import Notifier

    log, errors = start_log("warning", "console", sys.stderr)
    script = PrintScript(places, log)
    trace = LineTrace(sys.stdout.fileno(), log, script.asked)
    daemon = Daemon(config, log, trace=trace, api_timeout=timeout, notifier=Notifier.of_environment())

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            script.nursery = nursery
            await daemon.run_with_signals()
            nursery.cancel_scope.cancel()

    try:
        trio.run(run)
    finally:
        trace.sink.close(FLUSH_TIMEOUT)
        errors.close(FLUSH_TIMEOUT)


class PrintScript:
    """Runs a script once for each boot of the guest, in the background.

    Only one run at a time. Boots during a run cause one more run.

    Args:
        places: where to look for the script; the first file found is run. Empty for no script.
        log: for failures, and for one warning if there is no script.
    """

    def __init__(self, places: Sequence[Path], log: Log) -> None:
        self.nursery: trio.Nursery | None = None
        self._places = places
        self._missing_logged = False
        self._log = log
        self._armed = True
        self._running = self._again = False

    def asked(self, command: Command) -> None:
        """Handle a request of the guest."""
        if command is HostCommand.GUEST_POWER:
            self._armed = True
        elif self._armed and command in BOOT_QUESTIONS and self.nursery:
            self._armed = False
            if self._running:
                self._again = True
            elif path := next((each for each in self._places if each.is_file()), None):
                self._running = True
                self.nursery.start_soon(self._keep_running, path)
            elif self._places and not self._missing_logged:
                self._missing_logged = True
                looked = ", ".join(map(str, self._places))
                self._log.warning("script not found", looked=looked, remedy="-script=PATH; -script= if none is wanted")

    async def _keep_running(self, path: Path) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                await self._run(path)
        finally:
            self._running = False

    async def _run(self, path: Path) -> None:
        from vhostcomm.linux.children import program, program_ended

        words = [str(path)] if os.access(path, os.X_OK) else ["/bin/sh", str(path)]
        try:
            async with program(words, outlived=True, stdin=subprocess.DEVNULL) as process:
                await program_ended(process)
        except OSError as error:
            self._log.error("the script can't be run", script=str(path), why=error.strerror)
        else:
            if process.returncode:
                self._log.error("the script failed", script=str(path), status=process.returncode)
