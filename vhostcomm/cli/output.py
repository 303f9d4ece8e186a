"""Print tables and JSON on standard output."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

from vhostcomm.text import escape


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))  # noqa: T201


def print_line(text: str = "", *, flush: bool = False) -> None:
    print(text, flush=flush)  # noqa: T201


def print_error(text: str) -> None:
    """Print a line on standard error, after everything printed before: both streams may be one file."""
    sys.stdout.flush()
    print(text, file=sys.stderr)  # noqa: T201


def print_remark(text: str) -> None:
    """Print a sentence for the user on standard error, and below it the lines to copy, if the text has them.

    On a terminal, the sentence is in lines of at most 80 columns, of whole words. The other lines are never wrapped.
    """
    sentence, *lines = f"vhostcomm: {text}".split("\n")
    if sys.stderr.isatty():
        width = min(REMARK_WIDTH, shutil.get_terminal_size().columns)
        wrapped = textwrap.wrap(sentence, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        sentence = "\n".join(wrapped)
    print_error("\n".join((sentence, *lines)))


REMARK_WIDTH: Final = 80


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, clear: bool = False, below: bool = False
) -> None:
    """Print columns with headings, which are bold on a terminal. Untrusted text is escaped.

    Cells are never folded, so that they can be copied. On a terminal that is too narrow for the table, each row becomes
    a list with one cell per line; if the other columns take at most half of it, long cells in the last one run over.

    Args:
        heads: the headings; empty ones are not shown.
        rows: their cells.
        clear: clear the screen first, on a terminal.
        below: on a terminal that is too narrow for a row, put only the last cell of that row on a line of its own.
    """
    cells = [[escape(cell) for cell in row] for row in rows]
    terminal = sys.stdout.isatty()
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    *others, last = [width + 2 for width in widths]
    columns = shutil.get_terminal_size().columns
    too_wide = terminal and sum(others) + last - 2 > columns
    if too_wide and below:
        lines = _with_last_below(cells, columns)
    elif too_wide and sum(others) > columns / 2:
        lines = _as_lists(heads, cells)
    else:
        lines = [_line(row, widths) for row in cells]
        if any(heads):
            lines.insert(0, _bold(_line(heads, widths)) if terminal else _line(heads, widths))
    if clear and terminal:
        lines.insert(0, _CLEAR)
    print("\n".join(lines), flush=clear)  # noqa: T201


_CLEAR: Final = "\x1b[H\x1b[2J"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _with_last_below(rows: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Format a table without headings, whose columns are as wide as the rows that fit into a line need."""
    fitting = [row for row in rows if len("  ".join(row)) <= columns]
    widths = [max(map(len, column)) for column in zip(*fitting, strict=True)] or [0] * len(rows[0])
    lines = []
    for row in rows:
        line = _line(row, widths)
        lines += [line] if len(line) <= columns else [_line(row[:-1], widths[:-1]), f"  {row[-1]}"]
    return lines


def _as_lists(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format each row as its first cell, with the others below it."""
    width = max(map(len, heads))
    lines = []
    for first, *others in rows:
        lines.append(_bold(first))
        lines += [
            f"  {head.ljust(width)}  {cell}".rstrip() for head, cell in zip(heads[1:], others, strict=True) if cell
        ]
    return lines


def _bold(text: str) -> str:
    return text if os.environ.get("NO_COLOR") else f"\x1b[1m{text}\x1b[0m"
