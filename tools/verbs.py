"""The command line as values: every verb with its flags, out of the cyclopts app."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import cyclopts
from attrs import frozen
from cyclopts import App
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.help import HelpEntry, create_parameter_help_panel

from vhostcomm.cli.app import app
from vhostcomm.cli.help import shown_default, verbs_of


@frozen
class Flag:
    """A flag or an argument: how it is written, what it means (Markdown)."""

    names: tuple[str, ...]
    value: str
    help: str
    default: str
    choices: tuple[str, ...]
    variables: tuple[str, ...]
    required: bool

    @property
    def meaning(self) -> str:
        """What it means, with what can be given and where else."""
        choices = (
            f" One of {', '.join(f'`{each}`' for each in self.choices)}." if self.is_argument and self.choices else ""
        )
        return self.help + choices + "".join(f" In the environment: `{each}`." for each in self.variables)

    @property
    def is_argument(self) -> bool:
        return not self.names[0].startswith("-")

    @property
    def written(self) -> str:
        """`-c, --config FILE`."""
        return f"{', '.join(self.names)} {self.value}".strip()


@frozen
class Group:
    """Flags that belong together."""

    title: str
    flags: tuple[Flag, ...]


@frozen
class Verb:
    """A verb, or a group of verbs; `text` is what its docstring says below the first line, in Markdown."""

    words: tuple[str, ...]
    usage: str
    summary: str
    text: str
    groups: tuple[Group, ...]
    verbs: tuple[Verb, ...]
    alias: str

    @property
    def name(self) -> str:
        return " ".join(self.words)

    def all(self) -> Iterator[Verb]:
        yield self
        for each in self.verbs:
            yield from each.all()


def command_line() -> Verb:
    return _verb(app, (app.name[0],))


_IN_OVERVIEW: Final = {"help", "version"}
"""Commands that the overview describes in a line."""


def _verb(of: App, words: tuple[str, ...], alias: str = "") -> Verb:
    named = {name: aliases for name, aliases in verbs_of(of).items() if name not in _IN_OVERVIEW}
    verbs = tuple(_verb(of[name], (*words, name), *aliases[:1]) for name, aliases in named.items())
    says = inspect.getdoc(of.default_command) if of.default_command else of.help
    summary, _, text = (says or "").partition("\n\n")
    groups = () if verbs else tuple(_groups(of))
    usage = str(of.usage).removeprefix("Usage: ") if of.usage else " ".join([*words, *_usage(groups, verbs)])
    return Verb(words, usage, " ".join(summary.split()), text.strip(), groups, verbs, alias)


def _usage(groups: tuple[Group, ...], verbs: tuple[Verb, ...]) -> Iterator[str]:
    if verbs:
        yield "COMMAND"
    flags = [flag for group in groups for flag in group.flags]
    yield from (f"{flag.names[0]} {flag.value}" for flag in flags if flag.required and not flag.is_argument)
    if any(not flag.required and not flag.is_argument for flag in flags):
        yield "[OPTIONS]"
    for flag in flags:
        if flag.is_argument:
            yield flag.names[0] if flag.required else f"[{flag.names[0]}]"


def _groups(of: App) -> Iterator[Group]:
    arguments = of.assemble_argument_collection(parse_docstring=True)
    groups = sorted(arguments.groups, key=lambda group: (group.sort_key is not None, group.sort_key or 0))
    for group in groups:
        flags = tuple(_flag(each) for each in arguments.filter_by(group=group, show=True))
        if flags:
            yield Group(_TITLES.get(group.name, group.name), flags)


_GROUP = cyclopts.Group()
_TITLES = {"Parameters": "Flags"}


def _flag(argument: Argument) -> Flag:
    (entry,) = create_parameter_help_panel(_GROUP, ArgumentCollection([argument]), "plaintext").entries  # type: ignore[no-untyped-call]
    label = entry.positional_label
    # What is given by its place can be given by its name too; that is worth telling where it has a short one.
    by_name = (*entry.positive_shorts, *entry.positive_names) if entry.positive_shorts else ()
    default = None if argument.show_default is False else shown_default(argument.field_info.default)
    return Flag(
        names=(label, *by_name) if label else (*entry.positive_shorts, *entry.positive_names),
        value="" if label else _value(entry),
        help=argument.parameter.help or "",
        default="" if default is None or argument.required else default,
        choices=entry.choices if entry.choices and argument.parameter.show_choices else (),
        variables=entry.env_var or (),
        required=entry.required,
    )


def _value(entry: HelpEntry) -> str:
    return "|".join(entry.choices) if entry.choices and entry.metavar == "CHOICE" else entry.metavar or ""
