"""Make man pages from docs/commands.md and docs/configuration.md when a wheel is built (a hook of hatchling).

This knows only the Markdown that these pages use, and rejects anything else. A list item that begins with code is a
flag, a file or the like with its meaning. The converter is our own, because those that exist (pandoc, go-md2man, scdoc)
are no Python packages that pip could install for a build.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from markdown_it import MarkdownIt
from markdown_it.token import Token

_ESCAPES: Final = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})
_SEE_ALSO: Final = ("vhostcomm(1)", "vhostcomm-serve(1)", "vhostcomm-run(1)", "qemu-host(1)", "vhostcomm.toml(5)")
_LISTS_OF_LINKS: Final = re.compile(r"^(\||- \[| +- \[).*\n", re.MULTILINE)
"""Rows of tables and of a table of contents, which only list what follows."""


class ManPages(BuildHookInterface[Any]):
    """Adds the pages to a wheel's share/man."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's
        self._folder = tempfile.TemporaryDirectory(prefix="vhostcomm-man-")  # goes at the exit too, if the build fails
        for name, text in pages(Path(self.root) / "docs", self.metadata.version).items():
            made = Path(self._folder.name, name)
            made.write_text(text)
            build_data["shared_data"][str(made)] = f"share/man/man{name[-1]}/{name}"

    def finalize(self, *_: object) -> None:
        self._folder.cleanup()


def pages(docs: Path, version: str) -> dict[str, str]:
    """Return every page by file name."""
    head, *sections = re.split(r"^## ", _LISTS_OF_LINKS.sub("", (docs / "commands.md").read_text()), flags=re.MULTILINE)
    text = {title: body for title, _, body in (section.partition("\n") for section in sections)}
    verbs = {title: body for title, body in text.items() if title.startswith("vhostcomm ")}
    shared = "".join(f"## {title.upper()}\n{text[title]}" for title in ("Exit status", "Environment", "Files"))
    made = {f"{title.replace(' ', '-')}.1": page(title, 1, body, version) for title, body in verbs.items()}
    overview = "The host side of Virtual DSM's vchannel.\n\n" + head.partition("\n")[2] + shared
    made["vhostcomm.1"] = page("vhostcomm", 1, overview, version)
    made["qemu-host.1"] = page("qemu-host", 1, text["qemu-host"], version)
    made["vdsm_run.1"] = page("vdsm_run", 1, text["vhostcomm run"].replace("vhostcomm run", "vdsm_run"), version)
    _, _, settings = _LISTS_OF_LINKS.sub("", (docs / "configuration.md").read_text()).partition("\n")
    made["vhostcomm.toml.5"] = page("vhostcomm.toml", 5, "The configuration of vhostcomm.\n\n" + settings, version)
    return made


def page(name: str, number: int, text: str, version: str) -> str:
    """Make a page of a section of Markdown. Its first paragraph is the description; a usage may precede it."""
    tokens = [token for token in MarkdownIt("commonmark").parse(text) if token.type != "html_block"]
    usage = [token.content for token in tokens[:1] if token.type == "fence"]
    body = tokens[len(usage) :]
    summary = "".join(_inline(body[1].children or []))
    title = name.replace(" ", "-")
    # No date, because nobody would update it.
    parts = [f'.TH {_argument(title.upper())} {number} "" {_argument(f"vhostcomm {version}")}\n.nh\n.ad l\n']
    parts.append(f".SH NAME\n{escape(title)} \\- {summary[0].lower()}{summary[1:].rstrip('.')}\n")
    parts += [f".SH SYNOPSIS\n{_bold(escape(each.strip()))}\n" for each in usage]
    parts.append(".SH DESCRIPTION\n" + "".join(_blocks(body, h3=".SH" if number == 1 else ".SS")))
    others = [each.partition("(") for each in _SEE_ALSO]
    parts.append(".SH SEE ALSO\n" + ",\n".join(f"{_bold(escape(n))}({rest}" for n, _, rest in others if n != title))
    # The first paragraph of a section has no heading. Words with an underscore are names and stay unchanged.
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", "".join(parts) + "\n", flags=re.MULTILINE)


def escape(text: str) -> str:
    made = re.sub(r"(?<!\S)(?=\S*_)", r"\\%", text.translate(_ESCAPES))
    return "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in made)


def _argument(text: str) -> str:
    return f'"{escape(text)}"'


def _bold(text: str) -> str:
    return f"\\fB{text}\\fR"


def _guarded(text: str) -> str:
    """Escape lines that would look like macros."""
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


def _blocks(tokens: Sequence[Token], h3: str) -> Iterator[str]:
    paragraph = ".PP\n"
    heading = ""
    for token in tokens:
        match token.type:
            case "heading_open" if token.tag in {"h2", "h3"}:
                heading = h3 if token.tag == "h3" else ".SH"
            case "inline" if heading:
                title = "".join(child.content for child in token.children or [])
                yield f"{heading} {_argument(title)}\n"
                heading = ""
            case "inline" if group := re.fullmatch(r"\*\*([^*]+)\*\*:", token.content):
                yield f".SS {_argument(group[1])}\n"
            case "inline":
                words = "".join(_inline(token.children or []))
                tag, colon, meaning = words.partition("\\fR: ")
                if paragraph != ".PP\n" and colon and tag.startswith("\\fB") and "\\fR" not in tag:
                    yield f".TP\n{_guarded(tag)}\\fR\n{_guarded(meaning[:1].upper() + meaning[1:])}\n"
                else:
                    yield paragraph + _guarded(words) + "\n"
                paragraph = ".PP\n"
            case "code_block" | "fence":
                yield f".PP\n.RS 4\n.EX\n{_guarded(escape(token.content.rstrip(chr(10))))}\n.EE\n.RE\n"
            case "list_item_open":
                paragraph = ".IP \\(bu 2\n"
            case "heading_close" | "paragraph_open" | "paragraph_close" | "list_item_close":
                pass
            case "bullet_list_open" | "bullet_list_close":
                pass
            case other:
                raise ValueError(f"Markdown that no man page here has had so far: {other}: {token.content}")


def _inline(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        match token.type:
            case "text":
                yield escape(token.content)
            case "softbreak":
                yield "\n"
            case "code_inline":
                yield _bold(escape(token.content))
            case "em_open" | "strong_open":
                yield "\\fI"
            case "em_close" | "strong_close":
                yield "\\fR"
            case "link_open" | "link_close":
                pass
            case other:
                raise ValueError(f"Markdown that no man page here has had so far: {other}: {token.content}")
