"""Generate a part of docs/commands.md: cyclopts' own documentation of the command line, and qemu-host's help."""

from __future__ import annotations

import re
from typing import Final

from vhostcomm.cli.app import app
from vhostcomm.cli.flags import GROUPS
from vhostcomm.qemu_host.flags import help_text

_WHOLE: Final = ("serve", "run")
"""Verbs whose section lists the settings' flags; the sections of other verbs link to the first."""

_SETTINGS: Final = re.compile(rf"(\*\*({'|'.join(each.name for each in GROUPS.values())})\*\*:\n\n(\* .*\n)+\n*)+")
_ELSEWHERE: Final = "Every setting is a flag too, as for [`vhostcomm serve`](#vhostcomm-serve).\n\n"


def _shortened(listed: re.Match[str]) -> str:
    """Replace a list of all settings; a list of some stays."""
    return _ELSEWHERE if f"**{GROUPS['host'].name}**" in listed[0] else listed[0]


def commands() -> str:
    text = app.generate_docs(max_heading_level=3)
    # cyclopts repeats a verb that has its own usage, and inserts this program's name after a group of verbs.
    text = re.sub(r"^(vhostcomm ((?:\w+ )*\w+)) (?:\2 |-m \w+ )", r"\1 ", text, flags=re.MULTILINE)
    _, _, text = text.partition("## Table of Contents\n\n")
    first, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    parts = [first]
    for section in sections:
        whole = section.split("\n", 1)[0].removeprefix("## vhostcomm ") in _WHOLE
        parts.append(section if whole else _SETTINGS.sub(_shortened, section))
    usage = help_text().rpartition("This one is")[0].strip()
    parts.append(f"## qemu-host\n\nReplaces [the program of that name](coming-from.md).\n\n```text\n{usage}\n```\n")
    return "".join(parts)
