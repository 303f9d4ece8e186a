"""Verbs that show what a daemon knows, and make it reload: guests, info, events, web, reload."""

from __future__ import annotations

import json as json_module
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import Parameter

from vhostcomm.cli.completion import guest_names
from vhostcomm.cli.daemon_options import DaemonOptions
from vhostcomm.cli.output import print_error, print_json, print_line, print_table
from vhostcomm.errors import VhostcommError
from vhostcomm.text import counted, escape

_NOT_NOW: Final = 409
"""HTTP status of a request for a guest that isn't ready."""

SECONDS_MAX: Final = 3600.0
"""Maximum time that a daemon waits."""

UPTIME_TIMEOUT: Final = 2.0
"""Maximum seconds for a guest's uptime; a guest may not know the command."""

RELOAD_TIMEOUT: Final = 120.0
"""Seconds: 30 to read the file, 30 for sockets on a hanging file system, the rest for guests to end."""

DATA_SHOWN: Final = 50_000
"""Maximum characters to print of an answer: enough for any, even escaped."""


def check_seconds(_: object, value: float | None) -> None:
    """Reject a value that is no number of seconds, such as nan."""
    if value is not None and not 0 < value <= SECONDS_MAX:
        raise ValueError(f"must be more than 0 and at most {SECONDS_MAX:g} seconds")


Name: TypeAlias = Annotated[
    str | None, Parameter(help="The guest's name; optional if there is one guest.", completer=guest_names)
]
Json: TypeAlias = Annotated[bool, Parameter(help="Print JSON.")]
Seconds: TypeAlias = Annotated[
    float, Parameter(metavar="SECONDS", help="Seconds to wait for the answer.", validator=check_seconds)
]


def guests(
    *,
    json: Json = False,
    watch: Annotated[bool, Parameter(help="Keep running, and show changes.")] = False,
    daemon: DaemonOptions | None = None,
) -> int:
    """List guests and their state.

    Lists the guests of all running daemons, or of the daemons in --control. The address is the guest's own report, requested
    once after each of its starts. `vhostcomm list` is the same.

    For example:

        vhostcomm guests --watch
        vhostcomm guests --json | jq '.[].state'
    """
    with (daemon or DaemonOptions()).asked("guests") as daemons:
        if not watch:
            found, complete = daemons.guests(addresses=True)
            _show_guests(found, daemons.warnings, json=json)
            return 0 if complete else 1
        for _ in daemons.events():
            found, _ = daemons.guests(addresses=True)
            if json:
                print_line(json_module.dumps(found), flush=True)
            else:
                _show_guests(found, daemons.warnings, clear=True)
    return 0


def _show_guests(found: list[dict[str, Any]], warnings: list[str], *, json: bool = False, clear: bool = False) -> None:
    if json:
        print_json(found)
    else:
        hosts = any("host" in each for each in found)
        rows = [
            (
                each["name"], *([each["host"] or ""] if hosts else []), _state(each), local(each["since"]), each["serial"], each["address"] or "", each["sock"],
                each["problem"] or "",
            )
            for each in found
        ]  # fmt: skip
        heads = ("guest", *(["host"] if hosts else []), "state", "since", "serial", "address", "socket", "problem")
        print_table(heads, rows, clear=clear)
    for each in warnings:
        print_error(f"vhostcomm: {escape(each, DATA_SHOWN)}")


def _state(guest: dict[str, Any]) -> str:
    state = str(guest["state"])
    if guest["frozen_until"]:
        state += ", frozen" if state == "ready" else ", thaw owed"
    if guest["stop"]:
        state += f", {guest['stop']['how']} requested"
    return state


def info(guest: Name = None, *, json: Json = False, timeout: Seconds = 5.0, daemon: DaemonOptions | None = None) -> int:
    """Show a guest's address, its link to DSM, its uptime and its identity."""
    from vhostcomm.control.client import ControlError

    with (daemon or DaemonOptions()).asked("info") as daemons:
        client, name = daemons.with_guest(guest)
        path = client.guest(name)
        troubles, uptime = [], None
        if client.get(path)["state"] != "absent":
            try:
                client.post(f"{path}/call", {"command": "get_information", "timeout": timeout}, takes=timeout)
                with suppress(ControlError):  # inferred: a healthy guest may not know it
                    timeout = min(timeout, UPTIME_TIMEOUT)
                    answer = client.post(f"{path}/call", {"command": "get_uptime", "timeout": timeout}, takes=timeout)
                    uptime = answer["answer"]["text"] or None
            except ControlError as error:
                if error.status != _NOT_NOW:  # `problem` of its state is printed below
                    troubles.append(str(error))
        found = client.get(path)
    reported = found["information"] or {}
    troubles += [each for each in (found["problem"], reported["answer"]["problem"] if reported else None) if each]
    if json:
        print_json(found | {"uptime": uptime, "troubles": troubles})
        return 1 if troubles else 0
    identity = found["identity"]["guest"]
    rows = [
        ("guest", name),
        ("state", f"{_state(found)}, since {local(found['since'])}"),
        ("address", reported.get("address")),
        ("DSM", reported.get("link")),
        ("as of", local(reported.get("when"))),
        ("uptime", f"{uptime} (inferred)" if uptime else None),
        ("serial", identity["serial"]),
        ("UUID", identity["uuid"]),
        ("socket", found["sock"]),
        (
            "stop",
            found["stop"] and f"{found['stop']['how']} by {found['stop']['by']} at {local(found['stop']['when'])}",
        ),
        ("frozen until", local(found["frozen_until"])),
    ]
    print_table(("", ""), [(key, value) for key, value in rows if value])
    for each in troubles:
        print_error(f"vhostcomm: {escape(each, DATA_SHOWN)}")
    return 1 if troubles else 0


def events(*, json: Json = False, daemon: DaemonOptions | None = None) -> None:
    """Show events of guests as they happen, until Ctrl-C."""
    with (daemon or DaemonOptions()).asked("events") as daemons:
        for event in daemons.events():
            if not event:
                continue
            if json:
                print_line(json_module.dumps(event), flush=True)
                continue
            facts = [event.get("why"), event.get("until") and f"until {local(event['until'])}"]
            if event["event"] == "stopping":
                facts.append(f"{event['stop']['how']} by {event['stop']['by']}")
            if event["event"] == "lost":
                facts.append(f"{counted(event['count'], 'event')}, read too slowly")
            if event.get("times"):
                facts.append(f"{event['times']} times")
            line = [local(event.get("when")), event.get("guest", ""), event["event"], *filter(None, facts)]
            print_line("  ".join(escape(str(each)) for each in line), flush=True)


def web(*, json: Json = False, daemon: DaemonOptions | None = None) -> None:
    """Print a link to the web page of each running daemon that has one.

    A link signs one browser in, once, within an hour. Start a daemon with --web 127.0.0.1:8470 to have a page.
    """
    from vhostcomm.control.client import ControlError

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
        if not (isinstance(each, ControlError) and each.status == HTTPStatus.CONFLICT):  # it has no page
            print_error(f"vhostcomm: {each}")


def reload(*, json: Json = False, daemon: DaemonOptions | None = None) -> None:
    """Make a daemon read its configuration files again, and wait until the new configuration is active.

    If the configuration is invalid, the daemon rejects all of it, and the previous one stays active. The command then prints
    each reason, and exits with 1. Otherwise, it prints the names of changed settings that need a restart.
    """
    with (daemon or DaemonOptions()).asked("reload") as daemons:
        done = daemons.only().post("/reload", takes=RELOAD_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"reloaded, {counted(len(done['guests']), 'guest')}")
        if changed := done.get("needs_restart"):  # an older daemon doesn't say
            print_line(f"not active before a restart: {', '.join(changed)}")


def local(when: str | None) -> str:
    """Return a time of the daemon's in this machine's zone."""
    from datetime import datetime

    if not when:
        return ""
    return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
