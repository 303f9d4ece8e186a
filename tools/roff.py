"""Markdown as man(7) macros: as much of it as our own texts use. Anything else is refused, not guessed.

markdown-it reads the Markdown. What writes is ours, as the tools that do the whole want a program of
another language (pandoc, go-md2man, ronn), and lists of flags, which Markdown has no word for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

_ESCAPES = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})


def heading(name: str, section: int, version: str) -> str:
    """The first lines. There is no date: one that nobody keeps is wrong before long."""
    title = f'.TH {_argument(name.upper())} {section} "" {_argument(f"vhostcomm {version}")}'
    return f'.\\" Made from the program by `make docs`.\n{title}\n.nh\n.ad l\n'


def section(title: str, *blocks: str) -> str:
    return f".SH {_argument(title if title.startswith('[') else title.upper())}\n" + "".join(blocks).removeprefix(
        ".PP\n"
    )


def subsection(title: str, *blocks: str) -> str:
    return f".SS {_argument(title)}\n" + "".join(blocks).removeprefix(".PP\n")


def term(words: str, meaning: str) -> str:
    """A flag, a variable or a file with its meaning in Markdown; the words of the flag that are in capitals are values."""
    return f".TP\n{_bold(words)}\n{inline(meaning)}\n"


def bare(words: str) -> str:
    """A line in bold: a usage."""
    return f".PP\n{_bold(words)}\n"


def markdown(text: str) -> str:
    """Blocks of Markdown.

    Raises:
        ValueError: something in it is not known here.
    """
    return "".join(_blocks(MarkdownIt("commonmark").parse(text)))


def inline(text: str) -> str:
    """A line or a few of Markdown."""
    (_, content, _) = MarkdownIt("commonmark").parse(" ".join(text.split()).replace("[", "\\["))
    return _guarded("".join(_inline(content.children or [])))


def escape(text: str) -> str:
    made = text.translate(_ESCAPES)
    return "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in made)


def _argument(text: str) -> str:
    return f'"{escape(text)}"'


def _guarded(text: str) -> str:
    """Lines that no macro is taken for."""
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


def _bold(words: str) -> str:
    return _guarded(f"\\fB{escape(words)}\\fR")


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    paragraph = ".PP\n"
    for token in tokens:
        match token.type:
            case "paragraph_open":
                yield paragraph
                paragraph = ".PP\n"
            case "inline":
                yield _guarded("".join(_inline(token.children or []))) + "\n"
            case "code_block" | "fence":
                code = _guarded(escape(token.content.rstrip("\n")))
                yield f".PP\n.RS 4\n.EX\n{code}\n.EE\n.RE\n"
            case "list_item_open":
                paragraph = ".IP \\(bu 2\n"
            case "paragraph_close" | "list_item_close" | "bullet_list_open" | "bullet_list_close":
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
                yield f"\\fB{escape(token.content)}\\fR"
            case "em_open":
                yield "\\fI"
            case "em_close":
                yield "\\fR"
            case other:
                raise ValueError(f"Markdown that no man page here has had so far: {other}: {token.content}")
