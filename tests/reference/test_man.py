"""The man pages, through mandoc and groff, and the Markdown that they come from."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tools import roff
from tools.man import pages

PAGES = pages()


@pytest.mark.needs("mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_has_nothing_to_say(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"], input=PAGES[name], capture_output=True, text=True, check=False
    )
    # A date that nobody keeps would be wrong before long.
    said = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert said == []


@pytest.mark.needs("man")
def test_groff_warns_of_nothing() -> None:
    for name, text in PAGES.items():
        done = subprocess.run(
            ["man", "--warnings", "-Tutf8", "-l", "-"],
            input=text, capture_output=True, text=True, check=True, env=os.environ | {"MANWIDTH": "100"},
        )  # fmt: skip
        assert done.stderr == "", name


def shown(text: str) -> str:
    """A page as it is read, without bold."""
    command = ["mandoc", "-T", "ascii", "-O", "width=200"]
    page = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(".\b", "", page)


@pytest.mark.needs("mandoc")
def test_what_is_pasted_from_a_page_is_what_a_shell_wants() -> None:
    assert "vhostcomm completion fish | source          # in ~/.config/" in shown(PAGES["vhostcomm-completion.1"])
    page = shown(PAGES["vhostcomm-serve.1"])
    assert "vhostcomm serve --sock d990d22a-e971-ef5f-a7b3-e6374e496b34\n" in page


@pytest.mark.parametrize("text", [".TH is no macro here", "'tis", "a \\fB backslash", "`--flag`", "it's - ^ ~ `x`"])
def test_text_stays_text(text: str) -> None:
    made = roff.heading("x", 1, "1") + roff.section("Name", "x \\- y\n") + roff.section("Text", roff.markdown(text))
    assert text.replace("`--", "--").replace("g`", "g").replace("`x`", "x") in shown(made)


@pytest.mark.parametrize("text", ["# a heading", "1. a list", "**bold**", "[a](link)", "> said", "a <b>tag</b>"])
def test_markdown_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no man page here"):
        roff.markdown(text)
