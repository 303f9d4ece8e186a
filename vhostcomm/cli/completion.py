"""`vhostcomm completion`, and what is completed by asking a daemon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from vhostcomm.cli.output import print_line

COMPLETION_TIMEOUT: Final = 2.0
"""Seconds that somebody at a prompt waits for the names of guests."""

Shell = Literal["bash", "zsh", "fish"]
Program = Literal["vhostcomm", "vdsm_run"]


def completion(
    shell: Annotated[Shell, Parameter(help="The shell to complete in.")],
    *,
    program: Annotated[Program, Parameter(help="What to complete.")] = "vhostcomm",
) -> None:
    """Print the script that completes vhostcomm in a shell: verbs, flags, files, and names of running guests.

    A wheel has files that do this in its prefix's `share`, where shells look if the prefix is `/usr` or `/usr/local`.
    Elsewhere:

        source <(vhostcomm completion bash)         # in ~/.bashrc
        source <(vhostcomm completion zsh)          # in ~/.zshrc, behind compinit
        vhostcomm completion fish | source          # in ~/.config/fish/config.fish
    """
    print_line(script(shell, program).rstrip())


def script(shell: Shell, program: Program) -> str:
    if program == "vhostcomm":
        from vhostcomm.cli.app import app
    else:
        from vhostcomm.cli.run import run

        app = App(name=program, version_flags=["--version"])
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
    """Fish offers files beside all else, where nothing says that there are none: there are none where a verb is due."""
    verbs = [name for name in app if not name.startswith("-")]
    if verbs and app.default_command is None:
        yield f"complete -c {program} -n __fish_use_subcommand -f"
    for name in verbs:
        if not app[name].default_command:
            yield f"complete -c {program} -n '__fish_{program}_using_command {name}' -f"


_ZSH_END: Final = """\
# cyclopts defines the function, and leaves it at that.
compdef _cyclopts_PROGRAM PROGRAM
(( ${funcstack[(I)_PROGRAM]} )) && _cyclopts_PROGRAM "$@"
"""


def guest_names(context: Any) -> Sequence[str]:
    """The names of the guests of the daemon that `--control` and the environment say; none if there is no daemon."""
    import os

    from vhostcomm.cli.daemons import DaemonOptions
    from vhostcomm.errors import VhostcommError

    def given(flag: str, variable: str) -> str:
        return context[flag].raw or os.environ.get(variable, "")

    with suppress(ValueError, VhostcommError, KeyError, TypeError):
        daemon = DaemonOptions(
            given("--control", "VHOSTCOMM_CONTROL"), given("--control-token", "VHOSTCOMM_CONTROL_TOKEN")
        )
        with daemon.asked("completion", COMPLETION_TIMEOUT) as daemons:
            return [str(each["name"]) for each in daemons.guests()[0]]
    return []


def words_of_call(context: Any) -> Sequence[str]:
    """What `call` takes: a guest or a command, then a command behind a guest."""
    from vchannel import GuestCommand

    commands = [each.name.lower() for each in GuestCommand]
    match context.index:
        case 0:
            return [*guest_names(context), *commands]
        case 1 if str(context["words"].raw).lower() not in commands:
            return commands
        case _:
            return []
