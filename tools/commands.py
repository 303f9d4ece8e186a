"""docs/commands.md, made from the command line."""

from __future__ import annotations

from collections.abc import Iterator

from tools.texts import EXIT_STATUS, RUN_EXIT_STATUS, SERVE_EXIT_STATUS
from tools.verbs import Flag, Group, Verb, command_line
from vhostcomm.cli.flags import GROUPS
from vhostcomm.qemu_host.flags import FLAGS as QEMU_HOST

_SETTINGS = {each.name for each in GROUPS.values()}

HEAD = """\
# Commands

<!-- Made from the program by `make docs`; edits here are lost. -->

`vhostcomm help`, or `vhostcomm help serve`, shows what is on this page, and so do the man pages: `man vhostcomm`,
`man vhostcomm-serve` and so on. `vhostcomm version` shows the versions of vhostcomm, Python and QEMU. `vdsm_run` (in a
checkout `./vdsm_run.py`) is `vhostcomm run`. [Exit statuses](#exit-status) are listed below.
"""


def commands() -> str:
    line = command_line()
    verbs = [verb for each in line.verbs for verb in each.all()]
    parts = [HEAD, "| verb | |\n| --- | --- |\n" + "".join(map(_row, verbs))]
    parts += ["\n".join(_verb(verb)) for verb in verbs]
    parts.append("\n".join(_qemu_host()))
    parts.append("\n".join(_exit_status()))
    return "\n".join(parts).rstrip() + "\n"


def _row(verb: Verb) -> str:
    also = f", `{verb.alias}`" if verb.alias else ""
    return f"| [`{' '.join(verb.words[1:])}`](#{_anchor(verb)}){also} | {cell(verb.summary)} |\n"


def _anchor(verb: Verb) -> str:
    return "-".join(verb.words)


def _verb(verb: Verb) -> Iterator[str]:
    yield f"{'#' * len(verb.words)} {verb.name}\n"
    yield f"    {verb.usage}\n"
    yield f"{verb.summary}\n"
    if verb.alias:
        yield f"`vhostcomm {verb.alias}` is the same.\n"
    if verb.text:
        yield f"{verb.text}\n"
    own = [flag for group in verb.groups if group.title not in _SETTINGS for flag in group.flags]
    if own:
        yield "| | | default |\n| --- | --- | --- |"
        yield from map(_flag, own)
        yield ""
    if settings := [group for group in verb.groups if group.title in _SETTINGS]:
        yield f"Also {_several(settings)}: each [setting](configuration.md) as a flag.\n"


def _several(groups: list[Group]) -> str:
    *some, last = (group.title[0].lower() + group.title[1:] for group in groups)
    return f"{', '.join(some)} and {last}"


def _flag(flag: Flag) -> str:
    default = f"`{flag.default}`" if flag.default else "required" if flag.required else ""
    return f"| `{cell(flag.written)}` | {cell(flag.meaning)} | {cell(default)} |"


def _qemu_host() -> Iterator[str]:
    yield "## qemu-host\n"
    yield "    qemu-host [-FLAG=VALUE | -FLAG VALUE ...]\n"
    yield "Takes the place of the tool of that name, with [its flags and its API](coming-from.md); `-help` tells its version."
    group = ""
    for name, flag in QEMU_HOST.items():
        if not flag.group:
            continue
        if flag.group != group:
            group = flag.group
            yield f"\n| {group} | | default |\n| --- | --- | --- |"
        default = f"`{flag.default}`" if flag.default else ""
        yield f"| `-{name}` | {cell(flag.help)} | {cell(default)} |"
    yield ""


def _exit_status() -> Iterator[str]:
    yield "## Exit status\n"
    of = {"of `serve` and `qemu-host`": SERVE_EXIT_STATUS, "of `run`": RUN_EXIT_STATUS, "of the others": EXIT_STATUS}
    for whose, statuses in of.items():
        yield f"| {whose} | |\n| --- | --- |"
        yield from (f"| {status} | {cell(meaning)} |" for status, meaning in statuses)
        yield ""


def cell(text: str) -> str:
    """Text in a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")
