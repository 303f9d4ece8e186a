"""Verbs that make a guest do something: shutdown, reboot, resume, balloon, freeze, thaw, call."""

from __future__ import annotations

from typing import Annotated, Any, Final

from cyclopts import Parameter

from vhostcomm.cli.completion import words_of_call
from vhostcomm.cli.daemon_options import DaemonOptions
from vhostcomm.cli.guests import Json, Name, Seconds, check_seconds, local
from vhostcomm.cli.output import print_error, print_json, print_line
from vhostcomm.config import values
from vhostcomm.errors import UsageError
from vhostcomm.text import escape

QMP_TIMEOUT: Final = 20.0
"""Seconds: QEMU's answers take at most 5 s each, and after a resume one more second shows whether the machine stops again."""


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
    daemon: DaemonOptions | None = None,
) -> int:
    """Shut a guest down cleanly.

    A guest of `vhostcomm run` (vdsm_run) is stopped as by Ctrl-C there, even if it was never ready. If it does not power
    itself off, `run` ends it by stronger means, within its own --grace. `vhostcomm stop` is the same.

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


def reboot(
    guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: DaemonOptions | None = None
) -> None:
    """Reboot a guest."""
    with (daemon or DaemonOptions()).asked("reboot") as daemons:
        client, name = daemons.with_guest(guest)
        _print(client.post(client.guest(name, "reboot"), {"timeout": timeout}, takes=timeout), "reboots", json=json)


def resume(guest: Name = None, *, json: Json = False, daemon: DaemonOptions | None = None) -> None:
    """Resume a paused guest, such as after a full disk has space again.

    The guest must be one of `vhostcomm run` (vdsm_run), or have qmp = in the configuration file. If QEMU pauses the guest
    again at once, the command fails and says why.
    """
    with (daemon or DaemonOptions()).asked("resume") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "resume"), {}, takes=QMP_TIMEOUT)
    if json:
        print_json(done)
    else:
        print_line(f"{name}: {'resumed' if done['resumed'] else 'already running'}")


def balloon(
    guest: Name = None,
    *,
    size: Annotated[str | None, Parameter(metavar="SIZE", help="The guest's new memory; MiB without a unit.")] = None,
    json: Json = False,
    daemon: DaemonOptions | None = None,
) -> None:
    """Change the memory of a running guest, or show it without --size.

    The guest must be one of `vhostcomm run` (vdsm_run), or have qmp = in the configuration file. It needs a driver for its
    balloon, and changes its memory at its own pace. It never has more than its machine was started with.
    """
    from vhostcomm.cli.flags import parsed

    body = {} if size is None else {"size": parsed(values.memory, "--size", size, "512M")}
    with (daemon or DaemonOptions()).asked("balloon") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "balloon"), body, takes=QMP_TIMEOUT)
    if json:
        print_json(done)
        return
    asked = "" if done["asked"] is None else f", {_mib(done['asked'])} asked for"
    print_line(f"{name}: has {_mib(done['actual'])} of {_mib(done['memory'])}{asked}")


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
    daemon: DaemonOptions | None = None,
) -> None:
    """Freeze a guest's file systems, such as for a snapshot of its disks.

    For example:

        vhostcomm freeze nas --thaw-after 30 && lvcreate -s -n snap -L 1G vg/nas
        vhostcomm thaw nas
    """
    with (daemon or DaemonOptions()).asked("freeze") as daemons:
        client, name = daemons.with_guest(guest)
        done = client.post(client.guest(name, "freeze"), {"timeout": thaw_after}, takes=thaw_after)
        _print(done, f"is frozen until {local(done['frozen_until'])}", json=json)


def thaw(
    guest: Name = None, *, timeout: Seconds = 10.0, json: Json = False, daemon: DaemonOptions | None = None
) -> None:
    """Thaw a guest's file systems."""
    with (daemon or DaemonOptions()).asked("thaw") as daemons:
        client, name = daemons.with_guest(guest)
        _print(client.post(client.guest(name, "thaw"), {"timeout": timeout}, takes=timeout), "is thawed", json=json)


def call(
    *words: Annotated[
        str,
        Parameter(
            name="command",
            help="A name or a number, also an unknown one. GUEST before it is optional if there is one guest; DATA after "
            "it is text for the guest.",
            completer=words_of_call,
        ),
    ],
    timeout: Seconds = 10.0,
    json: Json = False,
    i_know_this_is_dangerous: Annotated[
        bool,
        Parameter(help="Allow a dangerous command; the daemon must allow it too (--allow-dangerous)."),
    ] = False,
    daemon: DaemonOptions | None = None,
) -> int:
    """Send a guest any command: `vhostcomm call nas get_ip`.

    These commands are known; those with a ! can lose data, settings or a secret, and need --i-know-this-is-dangerous:

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
            raise UsageError("call needs [GUEST] COMMAND [DATA]; text with spaces needs quotes")
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
        print_line(escape(answer["text"]))
    else:
        print_error(f"{name}: an empty answer")
    if answer["problem"]:
        print_error(f"vhostcomm: {name}: odd answer: {answer['problem']}")
    _print_grade(done)
    return 1 if answer["problem"] else 0


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


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
