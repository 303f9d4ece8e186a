"""Texts use plain, standard English: phrases that puzzled readers do not come back.

Checked are the pages with the help texts, errors, log messages, the Makefile, and the names of import contracts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt

from tests.docs.messages import texts
from tests.docs.pages import ROOT, all_pages

PHRASES: Final = {
    r"heed(s|ed)?": "obey, ignore",
    r"whoever|who gets there": "the user who, any client that",
    r"h[eo]ld(s|ing)? ([\w' ]+ )?still": "freeze",
    r"(let(s)? (\w+ )?|to )?go(es|ing)? on": "continue, thaw",
    r"of somebody else's|of root's|of ours": "of another user, root's, our",
    r"(is|are|was|were|been) told": "receives, reports, is rejected",
    r"(is|are|was|were|been) (not )?taken( for)?": "is accepted, used, rejected",
    r"mend(s|ed|ing)?": "correct, fix",
    r"how far (it|they|each|a guest|guests)": "the state of",
    r"served on": "still served",
    r"stands? (behind|beside|there|in the place|above|below)": "is, follows",
    r"get(s)? along": "can run together",
    r"in force": "active",
    r"anew": "again",
    r"(is|are) due to be|of (its|their) own accord": "automatically",
    r"Not so\?": "If it does not work",
    r"all in all": "in total",
    r"does the like|print the like": "the equivalent",
    r"(all|everything) that (it|they|must|was|were)": "all files it needs, all generated files",
    r"rooms|room doors": "packages, import contracts",
    r"memory stays": "constant memory",
    r"wants? (it|them|a|an)|as \w+ wants?": "needs, requires",
    r"folder": "directory",
}
"""Phrases that are never right in text for users, and what to write instead. docs/commands.md has the texts of `--help`."""

WRONG: Final = re.compile("|".join(rf"\b({phrase})(?!\w)" for phrase in PHRASES), re.IGNORECASE)

PAGES: Final = [*all_pages(), ROOT / "CHANGELOG.md"]


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The text of a page outside code, by paragraph or cell, with its line."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "inline":
            words = ("" if each.type == "code_inline" else each.content or " " for each in token.children or ())
            yield (token.map[0] + 1 if token.map else 0), " ".join("".join(words).split())


def puzzling(text: str) -> list[str]:
    return [f"line {line}: {found[0]!r}" for line, words in prose(text) for found in WRONG.finditer(words)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_standard_terms(page: Path) -> None:
    assert not puzzling(page.read_text()), f"write instead: {PHRASES}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_a_sentence_are_on_one_line(page: Path) -> None:
    inline = [
        token for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()) if token.type == "inline"
    ]
    spans = [
        (token.content, code.content) for token in inline for code in token.children or () if code.type == "code_inline"
    ]
    assert not [code for source, code in spans if code not in source]


@pytest.mark.slow
def test_errors_and_log_messages_use_standard_terms() -> None:
    found = list(texts())
    assert len(found) > 1000
    assert not {place: text for place, text in found if WRONG.search(text)}, f"write instead: {PHRASES}"


def test_makefile_and_import_contracts_use_standard_terms() -> None:
    shown = [line for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"#|\t@echo ", line)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = [each["name"] for each in project["tool"]["importlinter"]["contracts"]]
    assert len(shown) > 30
    assert len(contracts) > 10
    assert not [text for text in (*shown, *contracts) if WRONG.search(text)], f"write instead: {PHRASES}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A file with a mistake is told and not taken.", True),
        ("The guest does not heed\nthe power button.", True),
        ("A freeze holds the file systems still.", True),
        ("| a | b |\n| --- | --- |\n| c | Whoever asks |\n", True),
        ("An invalid file is rejected; `whoever` is code.", False),
        ("```text\nnas: it answers, and goes on\n```\n", False),
    ],
)
def test_phrases_are_found_outside_code(text: str, wrong: bool) -> None:
    assert bool(puzzling(text)) is wrong
