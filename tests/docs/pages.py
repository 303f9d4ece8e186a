"""The pages of the documentation: their blocks, and the treatment of each block.

A block that shows commands is fenced, of the kind `console`: lines with `$ ` are commands, the lines under one are what it
prints, and `…` matches anything. A comment before the block has information that a reader doesn't need:

    <!-- not run: why -->       it can't be run here; a test checks its verbs and flags
    <!-- status: 1 -->          its commands end with that status instead of 0
    <!-- file: NAME -->         the block is a file of that name
    <!-- guest: PATH -->        first a guest connects to that socket, and answers
    <!-- libvirt -->            `virsh` works, with a separate libvirt for the page
    <!-- images -->             first the stand-in guest's disks are copied: synoboot.img, system.img, data.img
    <!-- pat -->                first a stand-in DSM_VirtualDSM_72806.pat is created
    <!-- stand-in -->           first the stand-in guest is built: the page uses its disks in the cache
    <!-- given: NAME -->        for `python`: tests/docs/given.py defines its names
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import field, frozen
from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]

MARKS: Final = ("not run", "status", "file", "guest", "libvirt", "images", "pat", "stand-in", "given")

SHOWN_ONLY: Final = {"text", "toml", "json", "ini", "xml", "yaml", "lua", "hexdump"}
"""Kinds of blocks that are not run."""

_COMMAND: Final = re.compile(
    r"\s*(\$|#)?\s*(sudo\s+)?"
    r"(\S*/)?(vhostcomm|qemu-host|vdsm_run\.py|qemu-system-\S+|qemu-img|curl|make|apt|apt-get|pip|systemctl|virsh|qm|docker|podman)\s"
)
"""Beginnings of commands. In a block that is not run, a command would not be tested."""


class PageError(Exception):
    """A page violates the convention."""


@frozen
class Command:
    """A command and its output; an empty `output` matches any output."""

    text: str
    output: str


@frozen
class Block:
    """A fenced block."""

    page: str
    line: int
    kind: str
    content: str
    marks: dict[str, str]
    commands: tuple[Command, ...] = field(default=())

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.kind in {"console", "python"} and "not run" not in self.marks


GENERATED: Final = {"docs/commands.md"}
"""The page that is generated from the command line, and compared by another test. It has usages, no commands."""


def all_pages() -> list[Path]:
    """Every page of the documentation."""
    found = [
        ROOT / "README.md",
        ROOT / "captures/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("protocol/**/README.md"),
    ]
    return sorted(found)


def pages() -> list[Path]:
    """Every page whose commands are run."""
    return [path for path in all_pages() if str(path.relative_to(ROOT)) not in GENERATED]


def blocks(text: str, page: str) -> Iterator[Block]:
    """Return a page's blocks, in order.

    Raises:
        PageError: a block looks like prose, or shows commands and is not run.
    """
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            marks |= _marks(token.content)
        elif token.type == "code_block":
            raise PageError(f"{page}:{line}: an indented block; fence it, and say of what kind it is")
        elif token.type == "fence":
            yield _block(page, line, token.info.strip(), token.content, marks)
            marks = {}
        else:
            _check_no_block_is_meant(marks, f"{page}:{line}")
            marks = {}
    _check_no_block_is_meant(marks, page)


def inline_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield the code between backticks in prose and tables, with its line."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map[0] + 1 if token.map else 0), child.content


def _marks(comment: str) -> dict[str, str]:
    found = {}
    for body in re.findall(r"<!--(.*?)-->", comment, re.DOTALL):
        name, _, value = body.strip().partition(":")
        found[name] = " ".join(value.split())
    return found


def _check_no_block_is_meant(marks: dict[str, str], where: str) -> None:
    """Comments for people may be anywhere except directly before a block."""
    if meant := marks.keys() & set(MARKS):
        raise PageError(f"{where}: a comment ({', '.join(meant)}) with no block right behind it")


def _block(page: str, line: int, kind: str, content: str, marks: dict[str, str]) -> Block:
    where = f"{page}:{line}"
    if unknown := marks.keys() - set(MARKS):
        raise PageError(f"{where}: {', '.join(unknown)}: a comment before a block is one of {', '.join(MARKS)}")
    match kind:
        case "console":
            return Block(page, line, kind, content, marks, tuple(_commands(content, where)))
        case "python":
            if "given" not in marks:
                raise PageError(f"{where}: Python without <!-- given: … -->: it wouldn't be run")
        case "":
            raise PageError(f"{where}: a block of no kind; commands are `console`, what is only shown is `text`")
        case _ if kind not in SHOWN_ONLY:
            raise PageError(
                f"{where}: a block of kind {kind!r}: commands are `console`; shown are {', '.join(SHOWN_ONLY)}"
            )
        case _:
            _check_shown(kind, content, where)
    return Block(page, line, kind, content, marks)


def _check_shown(kind: str, content: str, where: str) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        if _COMMAND.match(line):
            raise PageError(f"{where}: line {number} of a block that isn't run looks like a command: {line.strip()}")
    try:
        if kind == "toml":
            tomllib.loads(content)
        elif kind == "json":
            json.loads(content)
    except ValueError as error:
        raise PageError(f"{where}: that is no {kind}: {error}") from None


def _commands(content: str, where: str) -> Iterator[Command]:
    lines = content.splitlines()
    place = 0
    while place < len(lines):
        if not lines[place].startswith("$ "):
            raise PageError(f"{where}: {lines[place]!r} stands before any command; one begins with `$ `")
        words = [lines[place][2:]]
        while words[-1].endswith("\\"):
            place += 1
            words.append(lines[place])
        place += 1
        begin = place
        while place < len(lines) and not lines[place].startswith("$ "):
            place += 1
        yield Command("\n".join(words), "\n".join(lines[begin:place]).strip("\n"))


def matches(expected: str, printed: str) -> bool:
    """Return whether output matches. A line `…` matches any lines, `…` within a line any text; blanks at ends are ignored."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(_spaced(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())) is not None


def _spaced(text: str) -> str:
    """Make several blanks match any number of blanks, because the width of columns varies."""
    return r"[ ]{2,}".join(re.escape(part) for part in re.split(r"[ ]{2,}", text))
