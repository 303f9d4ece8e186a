"""The command line: one small function per verb.

Exit status: 0 done; 1 an error, a difference, an answer that is missing; 2 a mistake in the command
line or the configuration, found before anything was changed.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App, CycloptsError

from vchannel.errors import VchannelError
from vhostcomm import __version__
from vhostcomm.cli import capture, config, disk, guests, probe, run, serve, streams
from vhostcomm.errors import UsageError, VhostcommError

app = App(
    name="vhostcomm",
    help="The host side of Virtual DSM's vchannel: answers what a guest asks its host.",
    version=f"vhostcomm {__version__}",
    version_flags=["--version"],
)
app.command(serve.serve)
app.command(run.run)
app.command(probe.probe)
app.command(config.app)
for _verb in guests.VERBS:
    app.command(_verb)
app.command(capture.app)
app.command(disk.app)


def main(*verb: str) -> NoReturn:
    """The console script; of a script for one verb, with that verb."""
    streams.prepare()
    try:
        status = app([*verb, *sys.argv[1:]], result_action="return_value", exit_on_error=False, print_error=False)
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


def _fail(message: str, status: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except (OSError, VhostcommError):
        streams.drop_output()
    print(f"vhostcomm: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
