"""The man pages that a build makes from the references, checked by mandoc and groff."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.cli.verbs import all_verbs
from tools.made import ROOT
from tools.man import page, pages

PAGES = pages(ROOT / "docs", "1.0")


def test_every_verb_and_program_and_the_file_has_a_page() -> None:
    verbs = {f"vhostcomm-{words[0]}.1" for words in all_verbs() if words}
    assert PAGES.keys() == verbs | {"vhostcomm.1", "vdsm_run.1", "qemu-host.1", "vhostcomm.toml.5"}


@pytest.mark.needs("mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_accepts_every_page(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning"], input=PAGES[name], capture_output=True, text=True, check=False
    )
    # The pages have no date, because nobody would update it.
    said = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert said == []


@pytest.mark.needs("man")
def test_groff_has_no_warnings() -> None:
    for name, text in PAGES.items():
        done = subprocess.run(
            ["man", "--warnings", "-Tutf8", "-l", "-"],
            input=text, capture_output=True, text=True, check=True, env=os.environ | {"MANWIDTH": "100"},
        )  # fmt: skip
        assert done.stderr == "", name


def shown(text: str) -> str:
    """Return a page's text as a reader sees it, without bold."""
    command = ["mandoc", "-T", "ascii", "-O", "width=200"]
    made = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(".\b", "", made)


@pytest.mark.needs("mandoc")
def test_commands_of_a_man_page_can_be_pasted() -> None:
    assert "vhostcomm completion zsh >~/.vhostcomm.zsh    # in ~/.zshrc" in shown(PAGES["vhostcomm-completion.1"])
    serve = shown(PAGES["vhostcomm-serve.1"])
    assert "vhostcomm serve --sock d990d22a-e971-ef5f-a7b3-e6374e496b34\n" in serve


@pytest.mark.needs("mandoc")
def test_flags_and_sections_are_converted() -> None:
    serve, run, settings = (shown(PAGES[f"{name}"]) for name in ("vhostcomm-serve.1", "vdsm_run.1", "vhostcomm.toml.5"))
    assert re.search(r"^       --guest-serial SERIAL\n {14}The guest's serial number\.", serve, re.MULTILINE)
    assert "SYNOPSIS\n       vhostcomm serve [OPTIONS]\n" in serve
    assert "SYNOPSIS\n       vdsm_run [OPTIONS] [DIRECTORY] [-- QEMU-ARGUMENT...]\n" in run
    assert "vhostcomm run" not in run.partition("SEE ALSO")[0]
    assert re.search(r"^   serve\.socket_mode\n       Mode of the sockets", settings, re.MULTILINE)
    titles = re.findall(r"^([A-Z]\S.*)$", shown(PAGES["vhostcomm.1"]), re.MULTILINE)[1:]
    assert titles == ["NAME", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"]


@pytest.mark.needs("mandoc")
@pytest.mark.parametrize("text", [".TH is no macro here", "'tis", "a \\fB backslash", "`--flag`", "it's - ^ ~ `x`"])
def test_text_that_looks_like_markup_is_escaped(text: str) -> None:
    made = page("x", 1, f"Some text.\n\n{text}\n", "1")
    assert text.replace("`--", "--").replace("g`", "g").replace("`x`", "x") in shown(made)


@pytest.mark.parametrize("text", ["# a heading", "1. a list", "![a](picture)", "> said", "a <b>tag</b>"])
def test_unknown_markdown_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="no man page here"):
        page("x", 1, f"Some text.\n\n{text}\n", "1")
