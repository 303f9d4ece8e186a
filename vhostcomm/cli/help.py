"""Format help as plain text: two columns, bold names on a terminal, no colours, boxes or trailing blanks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from cyclopts import Parameter

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDTH_MAX: Final = 100
"""Maximum columns of help; longer lines are hard to read."""

NAMES_MAX: Final = 24
"""Maximum columns of a flag with its value; after a longer one, the meaning starts on the next line."""


RUN: Final = "vhostcomm run"
"""The command that has scripts of its own."""


class HelpFormatter:
    """Formats a verb's help. Code blocks stay unchanged, so that they can be pasted.

    Args:
        program: the script that is `vhostcomm run` alone, which then has its name in usage and examples.
    """

    def __init__(self, program: str = RUN) -> None:
        self._program = program

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ARG002 - cyclopts'
        if usage:
            text = str(usage).strip().replace(RUN, self._program)
            _show(console, text if text.startswith("Usage:") else f"Usage: {text}", "")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        if text := _text_of(description).replace(RUN, self._program):
            _show(console, *_paragraphs(text, min(options.max_width, WIDTH_MAX)), "")

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from rich.markup import escape

        if not panel.entries:
            return
        _show(console, f"[bold]{panel.title}:[/bold]", markup=True)
        width = min(options.max_width, WIDTH_MAX)
        names = [_names(each) for each in panel.entries]
        column = min(NAMES_MAX, max(map(len, names))) + 4
        for name, entry in zip(names, panel.entries, strict=True):
            meaning = textwrap.wrap(_meaning(entry), width - column, break_on_hyphens=False, break_long_words=False)
            first = meaning.pop(0) if meaning and len(name) + 4 <= column else ""
            _show(console, f"  [bold]{escape(name)}[/bold]{' ' * (column - 2 - len(name)) if first else ''}"
                  f"{escape(first)}", markup=True)  # fmt: skip
            _show(console, *(" " * column + line for line in meaning))
        _show(console, "")


def _show(console: Console, *lines: str, markup: bool = False) -> None:
    for line in lines:
        console.print(line, markup=markup, highlight=False, emoji=False, no_wrap=True, overflow="ignore", crop=False)


def _names(entry: HelpEntry) -> str:
    """Format `-c, --config FILE`; for a verb, its name and aliases."""
    names = [*entry.positive_shorts, *entry.positive_names]
    if entry.positional_label:
        return ", ".join([entry.positional_label, *(name for name in names if name.startswith("-"))])
    return ", ".join(names) + (f" {entry.metavar}" if entry.metavar else "")


def _meaning(entry: HelpEntry) -> str:
    parts = [_text_of(entry.description)]
    if entry.choices:
        parts.append(f"[{', '.join(entry.choices)}]")
    if entry.env_var:
        parts.append(f"[{', '.join(entry.env_var)}]")
    if entry.default is not None:
        parts.append(f"[default: {entry.default}]")
    if entry.required:
        parts.append("[required]")
    return " ".join(" ".join(parts).split()).replace("`", "")


def _text_of(description: Any) -> str:
    shown = getattr(description, "primary_renderable", description)
    return str(getattr(shown, "plain", shown) or "").strip()


def _paragraphs(text: str, width: int) -> Iterator[str]:
    """Wrap paragraphs; keep indented blocks unchanged."""
    for place, block in enumerate(re.split(r"\n\s*\n", text)):
        if place:
            yield ""
        if block.startswith("    "):
            yield from map(str.rstrip, block.split("\n"))
        else:
            yield from textwrap.wrap(
                " ".join(block.split()).replace("`", ""), width, break_on_hyphens=False, break_long_words=False
            )


def shown_default(default: object) -> str | None:
    """Format a flag's default for help; None if it is meaningless to users."""
    if default is None or default is False or default == "":
        return None
    if isinstance(default, Enum):
        return str(default.value)
    return f"{default:g}" if isinstance(default, float) else str(default)


def verbs_of(app: App) -> dict[str, list[str]]:
    """Return the verbs of a command line or of a group: each name with its aliases."""
    names: dict[int, list[str]] = {}
    for name in app:
        if not name.startswith("-"):
            names.setdefault(id(app[name]), []).append(name)
    return {first: aliases for first, *aliases in names.values()}


DEFAULTS: Final = Parameter(show_default=shown_default, negative=())
"""Of every flag: none has a negative form, such as --no-snapshot."""


def group_of_verbs(name: str, help: str) -> App:
    """Make a verb that has verbs itself. In generated documentation, it inherits nothing from the main command."""
    from cyclopts import App

    return App(name=name, help=help, help_format="plaintext", default_parameter=DEFAULTS)
