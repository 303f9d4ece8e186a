"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from vhostcomm.text import escape

WIDTH = 10_000
"""Columns: a line stays a line."""


def print_json(value: Any) -> None:
    """A value as JSON, indented."""
    print(json.dumps(value, indent=2))  # noqa: T201


def print_line(text: str = "", *, flush: bool = False) -> None:
    print(text, flush=flush)  # noqa: T201


def print_error(text: str) -> None:
    """A line on standard error, behind all that was printed before: both may be the same file."""
    sys.stdout.flush()
    print(text, file=sys.stderr)  # noqa: T201


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, clear: bool = False) -> None:
    """Columns under their heads; in colour on a terminal. What a guest or a host sent is escaped.

    A cell is never folded, so that it can be copied: a terminal that is too narrow breaks the line. `clear` puts them alone
    onto the screen, where there is one.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False, header_style="bold", show_header=any(heads))
    for row in rows:
        table.add_row(*(Text(escape(cell), overflow="fold") for cell in row))
    console = Console(width=WIDTH, highlight=False)
    if clear:
        console.clear()  # nothing where there is no terminal
    console.print(table)
    if clear:
        sys.stdout.flush()
