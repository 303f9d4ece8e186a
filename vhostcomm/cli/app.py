"""The verbs of the command line. Each is imported only when it is used, so that no verb costs the others' imports."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Group, Parameter

from vhostcomm.cli.help import DEFAULTS, HelpFormatter
from vhostcomm.cli.versions import version_text

VERBS: Final[dict[str, dict[str, dict[str, str]]]] = {
    "Serve guests": {
        "serve": {"at": "serve:serve"},
        "run": {"at": "run:run", "usage": "vhostcomm run [OPTIONS] [DIRECTORY] [-- QEMU-ARGUMENT...]"},
        "reload": {"at": "guests:reload"},
        "config": {"at": "config:app"},
    },
    "Ask and manage guests": {
        "guests": {"at": "guests:guests", "alias": "list"},
        "info": {"at": "guests:info", "usage": "vhostcomm info [OPTIONS] [GUEST]"},
        "events": {"at": "guests:events"},
        "web": {"at": "guests:web"},
        "shutdown": {"at": "actions:shutdown", "alias": "stop", "usage": "vhostcomm shutdown [OPTIONS] [GUEST]"},
        "reboot": {"at": "actions:reboot", "usage": "vhostcomm reboot [OPTIONS] [GUEST]"},
        "resume": {"at": "actions:resume", "usage": "vhostcomm resume [OPTIONS] [GUEST]"},
        "balloon": {"at": "actions:balloon", "usage": "vhostcomm balloon [OPTIONS] [GUEST]"},
        "freeze": {"at": "actions:freeze", "usage": "vhostcomm freeze [OPTIONS] [GUEST]"},
        "thaw": {"at": "actions:thaw", "usage": "vhostcomm thaw [OPTIONS] [GUEST]"},
        "call": {"at": "actions:call", "usage": "vhostcomm call [OPTIONS] [GUEST] COMMAND [DATA]"},
    },
    "Set up": {
        "install": {"at": "install:install", "usage": "vhostcomm install [OPTIONS] PAT DIRECTORY"},
        "snippet": {"at": "snippet:app"},
        "disk": {"at": "disk:app"},
        "completion": {"at": "completion:completion"},
    },
    "Find a fault": {
        "probe": {"at": "probe:probe", "usage": "vhostcomm probe [OPTIONS] SOCK"},
        "capture": {"at": "capture:app"},
    },
    "Help": {
        "help": {"at": "app:show_help", "usage": "vhostcomm help [COMMAND...]"},
        "version": {"at": "versions:version"},
    },
}
"""Verbs by purpose: each with its function or group of verbs in this package, and its alias."""

_HELP: Final = [*VERBS].index("Help")
_GROUPS: Final = {title: Group(title, sort_key=place) for place, title in enumerate(VERBS)}

app = App(
    name="vhostcomm",
    help="The host side of Virtual DSM's vchannel: answers what a guest asks its host.",
    help_format="plaintext",
    version=version_text,
    version_flags=["--version", "-V"],
    version_format="plaintext",
    help_formatter=HelpFormatter(),
    default_parameter=DEFAULTS,
)
for _flags, _does in (
    (app.help_flags, "Show this help."),
    (app.version_flags, "Print the versions of vhostcomm, Python and QEMU."),
):
    for _flag in _flags:
        app[_flag].group, app[_flag].help = _GROUPS["Help"], _does
for _title, _verbs in VERBS.items():
    for _place, (_name, _about) in enumerate(_verbs.items()):
        _usage = {"usage": f"Usage: {_about['usage']}"} if "usage" in _about else {}
        app.command(
            f"vhostcomm.cli.{_about['at']}",
            name=_name,
            alias=_about.get("alias", ()),
            group=_GROUPS[_title],
            sort_key=_place,
            **_usage,
        )


def show_help(*verb: Annotated[str, Parameter(name="command", help="A command, such as serve.")]) -> None:
    """Show help on a command."""
    app.help_print([*verb])
