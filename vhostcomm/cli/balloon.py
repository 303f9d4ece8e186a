"""`vhostcomm balloon`: a running guest's memory."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter

from vhostcomm.cli.daemon_options import DaemonOptions
from vhostcomm.cli.flags import parsed
from vhostcomm.cli.guests import Json, Name, Where
from vhostcomm.cli.output import print_json, print_line
from vhostcomm.config import values

TIMEOUT: Final = 20.0
"""Seconds: QEMU's answers take 5 s each at most."""


def balloon(
    guest: Name = None,
    *,
    size: Annotated[str | None, Parameter(metavar="SIZE", help="The guest's new memory, such as 512M.")] = None,
    json: Json = False,
    daemon: Where = None,
) -> None:
    """Change the memory of a running guest, or show it without --size.

    The guest must be one of `vhostcomm run` (vdsm_run), or have qmp = in the configuration file. It needs a driver for its
    balloon, and changes its memory at its own pace. It never has more than its machine was started with.
    """
    body = {} if size is None else {"size": parsed(values.size, "--size", size, "512M")}
    with (daemon or DaemonOptions()).asked("balloon") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "balloon"), body, takes=TIMEOUT)
    if json:
        print_json(done)
        return
    asked = "" if done["asked"] is None else f", {_mib(done['asked'])} asked for"
    print_line(f"{name}: has {_mib(done['actual'])} of {_mib(done['memory'])}{asked}")


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
