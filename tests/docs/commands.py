"""Check a command without running it: our verbs and flags, make's targets, known programs."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cyclopts import App, CycloptsError

from tests.docs.pages import ROOT
from vhostcomm.cli.app import app
from vhostcomm.errors import UsageError
from vhostcomm.qemu_host.flags import FLAGS
from vhostcomm.qemu_host.goflags import parse
from vhostcomm.systemd import units

ELSEWHERE: Final = {"docker", "etcdctl", "git", "gh", "pvesm", "qm", "reboot", "rsync", "tshark", "virsh", "wireshark"}
"""Programs that need not be installed here."""

OPTIONS_OF_OTHERS: Final = {
    "--format",
    "--pids-limit",
    "--read-only",
    "--stop-timeout",
    "--tmpfs",
    "--unix-socket",
    "--x",
}
"""Flags of other programs that prose names, and placeholders."""


def check(text: str) -> None:
    """Fail if a command that is not run can't be valid."""
    words = shlex.split(text.replace("\\\n", " ").removesuffix("&"), comments=True)
    while words[0] == "sudo" or re.match(r"\w+=", words[0]):
        words.pop(0)
    program, rest = Path(words[0]).name, words[1:]
    match program:
        case "vhostcomm":
            check_ours(rest)
        case "vdsm_run.py":
            check_ours(["run", *rest])
        case "qemu-host":
            try:
                parse(rest, FLAGS)
            except UsageError as error:
                raise AssertionError(f"{text}: {error}") from None
        case "make":
            done = subprocess.run(
                ["make", "-nB", *rest], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
            )
            assert done.returncode == 0, f"{text}: {done.stderr}"
            assert "Nothing to be done" not in done.stdout, f"{text}: the target has no recipe"
        case "systemctl" | "journalctl":
            wrong = {word for word in rest if word.startswith("vhostcomm") and not is_unit(word)}
            assert not wrong, f"{text}: we have no such unit: {', '.join(wrong)}"
        case _ if "/" in words[0]:
            assert (ROOT / words[0]).exists() or program in {"pip", "pytest", "python"}, f"{text}: no {words[0]}"
        case _:
            assert program in ELSEWHERE or shutil.which(program), f"{text}: is there a program {program}?"


def check_ours(words: list[str]) -> None:
    """Fail if our command line rejects the words before running them."""
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise AssertionError(f"vhostcomm {shlex.join(words)}: {error}") from None


def is_unit(name: str) -> bool:
    """Return whether a unit is one of ours, or an instance of one."""
    before, at, rest = name.partition("@")
    if not at:
        return name in units.NAMES
    guest, _, kind = rest.rpartition(".")
    try:
        return units.instance(f"{before}@.{kind}", guest) == name
    except ValueError:
        return False


def wrong_in_prose(code: str) -> str:
    """Return the error if a piece of code in prose looks like one of our verbs or flags and does not exist."""
    words = re.split(r"[\s=]+", code)
    if words[0].startswith("--") and words[0] != "--":
        return "" if words[0] in _flags_of_all() | OPTIONS_OF_OTHERS else f"{words[0]}: no verb has it"
    if words[0] != "vhostcomm":
        return ""
    at = app
    for word in words[1:]:
        if word.startswith("-"):
            return "" if word in _flags(at) else f"{code}: it has no {word}"
        if not list(_verbs(at)):
            return ""
        if word not in _verbs(at):
            return "" if word in {"…", "VERB"} else f"{code}: there is no {word}"
        at = at[word]
    return ""


def _verbs(of: App) -> set[str]:
    return {name for name in of if not name.startswith("-")}


def _flags(of: App) -> set[str]:
    made = of.assemble_argument_collection(parse_docstring=False) if of.default_command else ()
    names = {name for argument in made for name in argument.names}
    return names | set(of.help_flags) | set(of.version_flags)


def _flags_below(of: App) -> set[str]:
    return _flags(of).union(*(_flags_below(of[verb]) for verb in _verbs(of)))


@functools.cache
def _flags_of_all() -> set[str]:
    return _flags_below(app)
