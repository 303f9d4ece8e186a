"""The command line: one small function per verb.

Parsing and printing belong here; logic goes into a package that tests can use without the command line.

Exit status: 0 success; 1 an error, a difference, a missing answer; 2 a mistake in the command line or the
configuration, found before any change; 78 a missing or inaccessible directory or group of a socket. After 2 and 78,
retrying is useless.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from vhostcomm.cli import output, program
from vhostcomm.cli.versions import version_text
from vhostcomm.errors import UsageError
from vhostcomm.linux.system_errors import user_error


def main(*verb: str) -> NoReturn:
    """Run the console script; a script for one verb passes that verb."""
    program.run("vhostcomm", lambda: _dispatch([*verb, *sys.argv[1:]], Path(sys.argv[0]).name if verb else ""))


def vdsm_run() -> NoReturn:
    """Run the console script `vdsm_run`."""
    main("run")


def _dispatch(words: list[str], program: str) -> object:
    if words == ["version"] or (words[-1:] in (["--version"], ["-V"]) and "--" not in words):
        output.print_line(version_text())  # without importing the command line
        return 0
    from cyclopts import CycloptsError

    from vhostcomm.cli.app import app

    if program:
        from vhostcomm.cli.help import HelpFormatter

        app.help_formatter = HelpFormatter(program)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in {"-h", "--help"}:
        app.resolved_commands()  # the overview shows a line of each verb's help
    try:
        return app(words, result_action="return_value", exit_on_error=False, print_error=False)
    except (CycloptsError, UsageError, BaseExceptionGroup) as error:
        from vhostcomm.cli.mistakes import explain

        mistake = user_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(mistake, CycloptsError | UsageError):
            raise
        raise explain(app, words, mistake, program) from None
