"""The verbs that ask a running daemon: guests, info, shutdown, reboot, resume, freeze, thaw, call, events, reload."""

from __future__ import annotations

import json as json_module
from contextlib import suppress
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import Parameter

from vhostcomm.cli.completion import guest_names, words_of_call
from vhostcomm.cli.daemons import DaemonOptions
from vhostcomm.cli.output import print_error, print_json, print_line, print_table
from vhostcomm.errors import UsageError
from vhostcomm.text import escape

_NOT_NOW: Final = 409
"""The status of what a guest that isn't ready was to be asked."""

SECONDS_MAX: Final = 3600.0
"""As much as a daemon waits."""

UPTIME_TIMEOUT: Final = 2.0
"""Seconds at most for a guest to tell its uptime, which it may not know how to."""

RESUME_TIMEOUT: Final = 20.0
"""Seconds: QEMU's answers, 5 s each at most, and a second to see whether it stops again."""

RELOAD_TIMEOUT: Final = 120.0
"""Seconds: 30 for reading the file, as many for sockets on a file system that hangs, and for guests that end."""

DATA_SHOWN: Final = 50_000
"""Characters of an answer: all of it, escaped."""


def check_seconds(_: object, value: float | None) -> None:
    """Refuse what is no number of seconds, such as nan."""
    if value is not None and not 0 < value <= SECONDS_MAX:
        raise ValueError(f"it takes seconds, more than 0 and at most {SECONDS_MAX:g}")


Where: TypeAlias = Annotated[DaemonOptions | None, Parameter(name="*")]
Name: TypeAlias = Annotated[
    str | None, Parameter(help="Its name; may be left out where there is one guest.", completer=guest_names)
]
Json: TypeAlias = Annotated[bool, Parameter(negative=(), help="Print JSON.")]
Seconds: TypeAlias = Annotated[float, Parameter(metavar="SECONDS", help="For its answer.", validator=check_seconds)]


def guests(
    *,
    json: Json = False,
    watch: Annotated[bool, Parameter(negative=(), help="Go on, and show what changes.")] = False,
    daemon: Where = None,
) -> int:
    """List the guests of the running daemons, and how far they are."""
    with (daemon or DaemonOptions()).asked("guests") as daemons:
        if not watch:
            found, complete = daemons.guests()
            _show_guests(found, json=json)
            return 0 if complete else 1
        for _ in daemons.events():
            found, _ = daemons.guests()
            if json:
                print_line(json_module.dumps(found), flush=True)
            else:
                _show_guests(found, clear=True)
    return 0


def _show_guests(found: list[dict[str, Any]], *, json: bool = False, clear: bool = False) -> None:
    if json:
        print_json(found)
        return
    rows = [
        (
            each["name"], _state(each), _local(each["since"]), each["serial"], each["address"] or "", each["sock"],
            each["problem"] or "",
        )
        for each in found
    ]  # fmt: skip
    print_table(("guest", "state", "since", "serial", "address", "socket", "problem"), rows, clear=clear)


def _state(guest: dict[str, Any]) -> str:
    state = str(guest["state"])
    if guest["frozen_until"]:
        state += ", frozen" if state == "ready" else ", thaw owed"
    if guest["stop"]:
        state += f", {guest['stop']['how']} asked for"
    return state


def info(guest: Name = None, *, json: Json = False, timeout: Seconds = 5.0, daemon: Where = None) -> int:
    """Ask a guest for its address, and show it with a link to DSM, its uptime and who it is told to be."""
    from vhostcomm.control.client import ControlError

    with (daemon or DaemonOptions()).asked("info") as daemons:
        client, name = daemons.with_guest(guest)
        path = client.guest(name)
        troubles, uptime = [], None
        if client.get(path)["state"] != "absent":
            try:
                client.post(f"{path}/call", {"command": "get_information", "timeout": timeout}, takes=timeout)
                with suppress(ControlError):  # inferred: one that doesn't know it isn't unwell
                    timeout = min(timeout, UPTIME_TIMEOUT)
                    answer = client.post(f"{path}/call", {"command": "get_uptime", "timeout": timeout}, takes=timeout)
                    uptime = answer["answer"]["text"] or None
            except ControlError as error:
                if error.status != _NOT_NOW:  # why not is its state's problem, which is told below
                    troubles.append(str(error))
        found = client.get(path)
    told = found["information"] or {}
    troubles += [each for each in (found["problem"], told["answer"]["problem"] if told else None) if each]
    if json:
        print_json(found | {"uptime": uptime, "troubles": troubles})
        return 1 if troubles else 0
    identity = found["identity"]["guest"]
    rows = [
        ("guest", name),
        ("state", f"{_state(found)}, since {_local(found['since'])}"),
        ("address", told.get("address")),
        ("DSM", told.get("link")),
        ("told", _local(told.get("when"))),
        ("uptime", f"{uptime} (inferred)" if uptime else None),
        ("serial", identity["serial"]),
        ("UUID", identity["uuid"]),
        ("socket", found["sock"]),
        (
            "stop",
            found["stop"] and f"{found['stop']['how']} by {found['stop']['by']} at {_local(found['stop']['when'])}",
        ),
        ("frozen until", _local(found["frozen_until"])),
    ]
    print_table(("", ""), [(key, value) for key, value in rows if value])
    for each in troubles:
        print_error(f"vhostcomm: {escape(each, DATA_SHOWN)}")
    return 1 if troubles else 0


def shutdown(
    guest: Name = None,
    *,
    wait: Annotated[
        float | None, Parameter(metavar="SECONDS", help="Wait until it is gone.", validator=check_seconds)
    ] = None,
    json: Json = False,
    daemon: Where = None,
) -> int:
    """Have a guest power itself off, cleanly. With --wait, wait until it is gone, and say how it went.

    A guest that vdsm_run.py or vhostcomm run has started is stopped as their Ctrl-C does it: also if it never was ready, and
    by harder means, within their --grace, if it doesn't heed.
    """
    with (daemon or DaemonOptions()).asked("shutdown") as daemons:
        client, name = daemons.with_guest(guest)
        body = {} if wait is None else {"wait": wait}
        done = client.post(client.guest(name, "shutdown"), body, takes=wait or 10.0)
    if json:
        print_json(done)
    elif done["gone"]:
        print_line(f"{name}: gone after {done['seconds']:.1f} s: {escape(done['how'])}")
    elif done["answered"]:
        print_line(f"{name}: it answers, and powers itself off")
    else:
        print_line(f"{name}: it has not answered yet, and is being stopped")
    return 1 if done["exit_status"] else 0


def reboot(guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: Where = None) -> None:
    """Have a guest start again."""
    with (daemon or DaemonOptions()).asked("reboot") as daemons:
        client, name = daemons.with_guest(guest)
        _tell_done(client.post(client.guest(name, "reboot"), {"timeout": timeout}, takes=timeout), "reboots", json=json)


def resume(guest: Name = None, *, json: Json = False, daemon: Where = None) -> None:
    """Have a paused machine run again, such as after a full disk has space again.

    For a guest of `vhostcomm run` (vdsm_run), or one with qmp = in the configuration file. Fails where the machine stops
    again at once, and says why.
    """
    with (daemon or DaemonOptions()).asked("resume") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "resume"), {}, takes=RESUME_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"{name}: {'runs again' if done['resumed'] else 'runs already'}")


def freeze(
    guest: Name = None,
    *,
    timeout: Annotated[
        float, Parameter(metavar="SECONDS", help="It is thawed after these, whatever happens.", validator=check_seconds)
    ] = 30.0,
    json: Json = False,
    daemon: Where = None,
) -> None:
    """Hold a guest's file systems still, such as for a snapshot of its disks; `thaw` lets them go on."""
    with (daemon or DaemonOptions()).asked("freeze") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "freeze"), {"timeout": timeout}, takes=timeout)
        _tell_done(done, f"holds still, until {_local(done['frozen_until'])}", json=json)


def thaw(guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: Where = None) -> None:
    """Let a guest's file systems go on."""
    with (daemon or DaemonOptions()).asked("thaw") as daemons:
        client, name = daemons.with_guest(guest)
        _tell_done(client.post(client.guest(name, "thaw"), {"timeout": timeout}, takes=timeout), "goes on", json=json)


def call(
    *words: Annotated[
        str,
        Parameter(
            name="words",
            help="[GUEST] COMMAND [DATA]: a command's name or number, and text.",
            completer=words_of_call,
        ),
    ],
    timeout: Seconds = 10.0,
    json: Json = False,
    i_know_this_is_dangerous: Annotated[
        bool,
        Parameter(negative=(), help="For commands that can lose data, settings or a secret; the daemon must allow it."),
    ] = False,
    daemon: Where = None,
) -> int:
    """Ask a guest anything: `vhostcomm call nas get_ip`. Where there is one guest its name may be left out."""
    with (daemon or DaemonOptions()).asked("call") as daemons:
        client, name, rest = daemons.with_first_word(list(words))
        if not 1 <= len(rest) <= 2:
            raise UsageError("call takes [GUEST] COMMAND [DATA]; text with spaces needs quotes")
        body: dict[str, Any] = {"command": rest[0], "timeout": timeout}
        if len(rest) > 1:
            body["data"] = rest[1]
        if i_know_this_is_dangerous:
            body["i_know_this_is_dangerous"] = True
        done = client.post(client.guest(name, "call"), body, takes=timeout)
    answer = done["answer"]
    if json:
        print_json(done)
    elif answer["json"] is not None:
        print_json(answer["json"])
    elif answer["text"]:
        print_line(escape(answer["text"], DATA_SHOWN))
    else:
        print_error(f"{name}: an empty answer")
    if answer["problem"]:
        print_error(f"vhostcomm: {name}: odd answer: {answer['problem']}")
    _tell_known(done)
    return 1 if answer["problem"] else 0


def events(*, json: Json = False, daemon: Where = None) -> None:
    """Follow what happens to guests, until Ctrl-C."""
    with (daemon or DaemonOptions()).asked("events") as daemons:
        for event in daemons.events():
            if not event:
                continue
            if json:
                print_line(json_module.dumps(event), flush=True)
                continue
            facts = [event.get("why"), event.get("until") and f"until {_local(event['until'])}"]
            if event["event"] == "stopping":
                facts.append(f"{event['stop']['how']} by {event['stop']['by']}")
            if event["event"] == "lost":
                facts.append(f"{event['count']} events, read too slowly")
            if event.get("times"):
                facts.append(f"{event['times']} times")
            line = [_local(event.get("when")), event.get("guest", ""), event["event"], *filter(None, facts)]
            print_line("  ".join(escape(str(each)) for each in line), flush=True)


def reload(*, json: Json = False, daemon: Where = None) -> None:
    """Have a daemon read its configuration file again, and wait until the new configuration is active.

    A configuration that can't be served is rejected whole: the old one stays active, the reasons are printed, and the exit
    status is 1.
    """
    with (daemon or DaemonOptions()).asked("reload") as daemons:
        done = daemons.only().post("/reload", takes=RELOAD_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"reloaded, {len(done['guests'])} guests")


def _tell_done(done: dict[str, Any], what: str, *, json: bool) -> None:
    if json:
        print_json(done)
        return
    said = f" ({done['answer']['text']})" if done["answer"]["text"] else ""
    print_line(f"{done['guest']}: it answers{escape(said)}, and {what}")
    _tell_known(done)


def _tell_known(done: dict[str, Any]) -> None:
    command = done["command"]
    if command["known"] == "inferred":
        print_error(
            f"{command['number']} {command['name']} is inferred: nobody has published what a genuine guest does"
        )
    elif command["known"] == "unknown":
        print_error(f"{command['number']} is unknown: nothing is known of it")


def _local(when: str | None) -> str:
    from datetime import datetime

    if not when:
        return ""
    return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
