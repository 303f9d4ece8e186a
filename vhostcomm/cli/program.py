"""Run a console script: prepare standard streams, print errors on one line, set the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from typing import NoReturn

from vchannel.errors import VchannelError
from vhostcomm.cli import streams
from vhostcomm.errors import VhostcommError
from vhostcomm.linux.system_errors import user_error
from vhostcomm.systemd.journal import error_text


def run(name: str, work: Callable[[], object], statuses: Container[int] = range(256)) -> NoReturn:
    """Run a program, and end with its exit status.

    Args:
        name: prefix of error messages.
        work: the program; an integer that it returns is the exit status, any other value means 0.
        statuses: the documented exit statuses; an error with another one ends with 1.
    """
    streams.prepare()
    try:
        status = work()
        sys.stdout.flush()
    except streams.ReaderGoneError:
        streams.drop_output()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (Exception, BaseExceptionGroup) as error:
        shown = VhostcommError(str(error)) if isinstance(error, VchannelError) else user_error(error)
        if shown is None:
            if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt):
                sys.exit(130)
            raise
        try:
            sys.stdout.flush()
        except (OSError, VhostcommError):
            streams.drop_output()
        print(error_text(f"{name}: {shown.in_lines}"), file=sys.stderr)  # noqa: T201
        sys.exit(shown.exit_code if shown.exit_code in statuses else 1)
    sys.exit(status if isinstance(status, int) else 0)
