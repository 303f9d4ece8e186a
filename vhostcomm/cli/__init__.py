"""The command line: one small function per verb.

Exit status: 0 done; 1 an error, a difference, an answer that is missing; 2 a mistake in the command
line or the configuration, found before anything was changed; 78 a folder or a group for a socket that isn't
there, or isn't ours to use. After 2 and 78 another try is in vain.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter

from vchannel.errors import VchannelError
from vhostcomm.cli import capture, completion, config, disk, guests, output, probe, run, serve, snippet, streams
from vhostcomm.cli.help import HelpFormatter, shown_default
from vhostcomm.cli.versions import version_text
from vhostcomm.errors import UsageError, VhostcommError
from vhostcomm.journal import error_text

app = App(
    name="vhostcomm",
    help="The host side of Virtual DSM's vchannel: answers what a guest asks its host.",
    version=version_text,
    version_flags=["--version"],
    version_format="plaintext",
    help_formatter=HelpFormatter(),
    default_parameter=Parameter(show_default=shown_default),
)
app.command(serve.serve)
app.command(run.run, usage="Usage: vhostcomm run [OPTIONS] [-- QEMU-ARGUMENT...]")
app.command(probe.probe)
app.command(config.app)
for _verb in guests.VERBS:
    app.command(_verb, usage=guests.USAGE.get(_verb))
app.command(capture.app)
app.command(disk.app)
app.command(snippet.app)
app.command(completion.completion)


def main(*verb: str) -> NoReturn:
    """The console script; of a script for one verb, with that verb."""
    streams.prepare()
    words = [*verb, *sys.argv[1:]]
    try:
        if words[-1:] == ["--version"] and "--" not in words:  # cyclopts would break its lines at a terminal's width
            output.print_line(version_text())
            sys.exit(0)
        status = app(words, result_action="return_value", exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (CycloptsError, UsageError) as error:
        _fail(f"{error} (see vhostcomm --help)", UsageError.exit_code)
    except VhostcommError as error:
        _fail(str(error), error.exit_code)
    except VchannelError as error:
        _fail(str(error), VhostcommError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head`
        streams.drop_output()
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def vdsm_run() -> NoReturn:
    """The console script of that name."""
    main("run")


def _fail(message: str, status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except (OSError, VhostcommError):
        streams.drop_output()
    print(error_text(f"vhostcomm: {message}"), file=sys.stderr)  # noqa: T201
    sys.exit(status)
