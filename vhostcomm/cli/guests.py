"""The verbs for a running daemon: guests, info, shutdown, reboot, resume, freeze, thaw, call, events, reload."""

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
"""HTTP status of a request for a guest that isn't ready."""

SECONDS_MAX: Final = 3600.0
"""Maximum time that a daemon waits."""

UPTIME_TIMEOUT: Final = 2.0
"""Maximum seconds for a guest's uptime; a guest may not know the command."""

RESUME_TIMEOUT: Final = 20.0
"""Seconds: QEMU's answers take at most 5 s each, and one more second shows whether the machine stops again."""

RELOAD_TIMEOUT: Final = 120.0
"""Seconds: 30 to read the file, 30 for sockets on a hanging file system, the rest for guests to end."""

DATA_SHOWN: Final = 50_000
"""Maximum characters to print of an answer: enough for any, even escaped."""


def check_seconds(_: object, value: float | None) -> None:
    """Reject a value that is no number of seconds, such as nan."""
    if value is not None and not 0 < value <= SECONDS_MAX:
        raise ValueError(f"must be more than 0 and at most {SECONDS_MAX:g} seconds")


Where: TypeAlias = Annotated[DaemonOptions | None, Parameter(name="*")]
Name: TypeAlias = Annotated[
    str | None, Parameter(help="The guest's name; optional if there is one guest.", completer=guest_names)
]
Json: TypeAlias = Annotated[bool, Parameter(negative=(), help="Print JSON.")]
Seconds: TypeAlias = Annotated[
    float, Parameter(metavar="SECONDS", help="Seconds to wait for the answer.", validator=check_seconds)
]


def guests(
    *,
    json: Json = False,
    watch: Annotated[bool, Parameter(negative=(), help="Keep running, and show changes.")] = False,
    daemon: Where = None,
) -> int:
    """List guests and their state.

    Guests of all running daemons are listed, unless --control names one. The address is the guest's own report, requested
    once after each of its starts. `vhostcomm list` is the same.

    For example:

        vhostcomm guests --watch
        vhostcomm guests --json | jq '.[].state'
    """
    with (daemon or DaemonOptions()).asked("guests") as daemons:
        if not watch:
            found, complete = daemons.guests(addresses=True)
            _show_guests(found, json=json)
            return 0 if complete else 1
        for _ in daemons.events():
            found, _ = daemons.guests(addresses=True)
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
        ("state", f"{_state(found)}, since {_local(found['since'])}"),
        ("address", reported.get("address")),
        ("DSM", reported.get("link")),
        ("told", _local(reported.get("when"))),
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
        float | None,
        Parameter(
            metavar="SECONDS", help="Wait until the guest is off, and report how it ended.", validator=check_seconds
        ),
    ] = None,
    json: Json = False,
    daemon: Where = None,
) -> int:
    """Shut a guest down cleanly.

    A guest of `vhostcomm run` (vdsm_run) is stopped as by Ctrl-C there, even if it was never ready. If it ignores the request,
    stronger means follow within --grace. `vhostcomm stop` is the same.

    For example:

        vhostcomm shutdown nas --wait 90
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
        print_line(f"{name}: shutting down")
    else:
        print_line(f"{name}: no answer yet; being stopped")
    return 1 if done["exit_status"] else 0


def reboot(guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: Where = None) -> None:
    """Reboot a guest."""
    with (daemon or DaemonOptions()).asked("reboot") as daemons:
        client, name = daemons.with_guest(guest)
        _print(client.post(client.guest(name, "reboot"), {"timeout": timeout}, takes=timeout), "reboots", json=json)


def resume(guest: Name = None, *, json: Json = False, daemon: Where = None) -> None:
    """Resume a paused guest, such as after a full disk has space again.

    The guest must be one of `vhostcomm run` (vdsm_run), or have qmp = in the configuration file. If QEMU pauses the guest
    again at once, the command fails and says why.
    """
    with (daemon or DaemonOptions()).asked("resume") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "resume"), {}, takes=RESUME_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"{name}: {'resumed' if done['resumed'] else 'already running'}")


def freeze(
    guest: Name = None,
    *,
    thaw_after: Annotated[
        float,
        Parameter(
            name=["--thaw-after", "--timeout"],
            metavar="SECONDS",
            help="Thaw automatically after SECONDS. --timeout is the same.",
            validator=check_seconds,
        ),
    ] = 30.0,
    json: Json = False,
    daemon: Where = None,
) -> None:
    """Freeze a guest's file systems, such as for a snapshot of its disks.

    For example:

        vhostcomm freeze nas --thaw-after 30 && lvcreate -s -n snap -L 1G vg/nas
        vhostcomm thaw nas
    """
    with (daemon or DaemonOptions()).asked("freeze") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "freeze"), {"timeout": thaw_after}, takes=thaw_after)
        _print(done, f"is frozen until {_local(done['frozen_until'])}", json=json)


def thaw(guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: Where = None) -> None:
    """Thaw a guest's file systems."""
    with (daemon or DaemonOptions()).asked("thaw") as daemons:
        client, name = daemons.with_guest(guest)
        _print(client.post(client.guest(name, "thaw"), {"timeout": timeout}, takes=timeout), "is thawed", json=json)


def call(
    *words: Annotated[
        str,
        Parameter(
            name="words",
            help="[GUEST] COMMAND [DATA]: the command's name or number, and text for it.",
            completer=words_of_call,
        ),
    ],
    timeout: Seconds = 10.0,
    json: Json = False,
    i_know_this_is_dangerous: Annotated[
        bool,
        Parameter(negative=(), help="Allow a dangerous command; the daemon must allow it too (--allow-dangerous)."),
    ] = False,
    daemon: Where = None,
) -> int:
    """Send a guest any command: `vhostcomm call nas get_ip`.

    The guest's name is optional if there is one guest. Unknown numbers can be sent too. These commands are known; those with
    a ! can lose data, settings or a secret, and need --i-know-this-is-dangerous:

         0 test               8 reboot             13 delete_vdisk !
         1 webapi !           9 resize_vdisk       14 fs_freeze
         2 get_ip            10 get_information    15 fs_unfreeze
         5 get_uptime        11 get_dsm_setting    16 get_firmware_version
         6 poweroff          12 reset !            17 set_network
        18 guest_notify      19 get_default_pw !
    """
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
    _print_grade(done)
    return 1 if answer["problem"] else 0


def events(*, json: Json = False, daemon: Where = None) -> None:
    """Show events of guests as they happen, until Ctrl-C."""
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
    """Make a daemon read its configuration file again, and wait until the new configuration is active.

    An invalid configuration is rejected as a whole: the previous one stays active, the reasons are printed, and the exit
    status is 1.
    """
    with (daemon or DaemonOptions()).asked("reload") as daemons:
        done = daemons.only().post("/reload", takes=RELOAD_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"reloaded, {len(done['guests'])} guests")


def _print(done: dict[str, Any], what: str, *, json: bool) -> None:
    if json:
        print_json(done)
        return
    said = f" (its answer: {done['answer']['text']})" if done["answer"]["text"] else ""
    print_line(f"{done['guest']}: {what}{escape(said)}")
    _print_grade(done)


def _print_grade(done: dict[str, Any]) -> None:
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
