"""`vhostcomm completion`, and completions that ask a daemon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from vhostcomm.cli.output import print_line

COMPLETION_TIMEOUT: Final = 2.0
"""Seconds to wait for the names of guests, while the user waits at a prompt."""

Shell = Literal["bash", "zsh", "fish"]
Program = Literal["vhostcomm", "vdsm_run"]


def completion(
    shell: Annotated[Shell, Parameter(help="The shell to complete in.")],
    *,
    program: Annotated[Program, Parameter(help="What to complete.")] = "vhostcomm",
) -> None:
    """Print the script that completes vhostcomm in a shell: verbs, flags, files, and names of running guests.

    A wheel has files that do this in its prefix's `share`, where shells look if the prefix is `/usr` or `/usr/local`.
    Elsewhere, write the script to a file, once and after each upgrade:

        vhostcomm completion bash >~/.vhostcomm.bash  # source it in ~/.bashrc
        vhostcomm completion zsh >~/.vhostcomm.zsh    # in ~/.zshrc, after compinit
        vhostcomm completion fish >~/.config/fish/completions/vhostcomm.fish
    """
    print_line(script(shell, program).rstrip())


def script(shell: Shell, program: Program) -> str:
    if program == "vhostcomm":
        from vhostcomm.cli.app import app
    else:
        from vhostcomm.cli.help import DEFAULTS
        from vhostcomm.cli.run import run

        app = App(name=program, version_flags=["--version"], default_parameter=DEFAULTS)
        app.default(run)
    made = app.generate_completion(shell=shell)
    match shell:
        case "zsh":
            return f"{made}\n{_ZSH_END.replace('PROGRAM', program)}"
        case "fish":
            return "\n".join([made, *_no_files(app, program)])
        case "bash":
            return made


def _no_files(app: App, program: str) -> Iterator[str]:
    """Keep fish from offering files where a verb is expected; it offers them by default."""
    verbs = [name for name in app if not name.startswith("-")]
    if verbs and app.default_command is None:
        yield f"complete -c {program} -n __fish_use_subcommand -f"
    for name in verbs:
        if not app[name].default_command:
            yield f"complete -c {program} -n '__fish_{program}_using_command {name}' -f"


_ZSH_END: Final = """\
# cyclopts defines the function, but does not register it.
compdef _cyclopts_PROGRAM PROGRAM
(( ${funcstack[(I)_PROGRAM]} )) && _cyclopts_PROGRAM "$@"
"""


def guest_names(context: Any) -> Sequence[str]:
    """Return the guests' names of the daemon that `--control` or the environment selects; none without a daemon."""
    import os

    from vhostcomm.cli.daemon_options import DaemonOptions
    from vhostcomm.cli.hosts import split
    from vhostcomm.errors import VhostcommError

    with suppress(ValueError, VhostcommError, KeyError, TypeError):
        control = split(context["--control"].raw or os.environ.get("VHOSTCOMM_CONTROL", ""))
        if any(each.startswith("ssh:") for each in control):
            return []  # a connection may take long, or ask for a password
        token = context["--control-token"].raw or os.environ.get("VHOSTCOMM_CONTROL_TOKEN", "")
        daemon = DaemonOptions([*filter(None, control)], token)
        with daemon.asked("completion", COMPLETION_TIMEOUT) as daemons:
            return [str(each["name"]) for each in daemons.guests()[0]]
    return []


def words_of_call(context: Any) -> Sequence[str]:
    """Complete the words of `call`: a guest or a command, then a command after a guest."""
    from vchannel import GuestCommand

    commands = [each.name.lower() for each in GuestCommand]
    match context.index:
        case 0:
            return [*guest_names(context), *commands]
        case 1 if str(context["command"].raw).lower() not in commands:
            return commands
        case _:
            return []
