"""`vhostcomm web`: links to the web pages of the running daemons."""

from __future__ import annotations

from vhostcomm.cli.daemon_options import DaemonOptions
from vhostcomm.cli.guests import Json, Where
from vhostcomm.cli.output import print_error, print_json, print_line
from vhostcomm.errors import VhostcommError


def web(*, json: Json = False, daemon: Where = None) -> None:
    """Print a link to the web page of each running daemon that has one.

    A link signs one browser in, once, within an hour. Start a daemon with --web 127.0.0.1:8470 to have a page.
    """
    with (daemon or DaemonOptions()).asked("web") as daemons:
        links, failed = [], []
        for client in daemons.clients:
            try:
                links.append(str(client.post("/web")["link"]))
            except VhostcommError as error:
                failed.append(error)
        if not links:
            raise failed[0]
    if json:
        print_json(links)
        return
    for link in links:
        print_line(link)
    for each in failed:
        if "no web page" not in str(each):
            print_error(f"vhostcomm: {each}")
