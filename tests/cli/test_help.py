"""Help on a terminal of 80 columns."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tests.cli.verbs import all_verbs
from tests.serving import ENVIRONMENT, run_vhostcomm
from vhostcomm.cli.app import VERBS as VERBS_BY_TITLE
from vhostcomm.cli.app import app

VERBS = list(all_verbs())
SGR = re.compile(r"\x1b\[([0-9;]*)m")
NARROW = ENVIRONMENT | {"COLUMNS": "80"}


@pytest.mark.slow
def test_commands_in_help_are_not_wrapped() -> None:
    shown = run_vhostcomm("completion", "--help", env=NARROW).stdout
    assert """
    vhostcomm completion bash >~/.vhostcomm.bash  # source it in ~/.bashrc
    vhostcomm completion zsh >~/.vhostcomm.zsh    # in ~/.zshrc, after compinit
    vhostcomm completion fish >~/.config/fish/completions/vhostcomm.fish

""" in re.sub(r" +$", "", shown, flags=re.MULTILINE)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.slow
def test_help_fits_80_columns_without_noise(words: tuple[str, ...]) -> None:
    written = io.StringIO()
    app.help_print([*words], console=Console(file=written, width=80))
    shown = re.sub(r" +$", "", written.getvalue(), flags=re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith(" ".join(["Usage: vhostcomm", *words]))
    for noise in ("STR", "FLOAT", "default: None", "default: False", 'default: ""', "ImageFormat", "\n\n\n"):
        assert noise not in shown


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
@pytest.mark.slow
def test_help_is_readable_on_any_background_and_has_no_padding(words: tuple[str, ...]) -> None:
    written = io.StringIO()
    app.help_print([*words], console=Console(file=written, width=80, force_terminal=True, no_color=False))
    assert set(SGR.findall(written.getvalue())) <= {"0", "1"}  # only bold and its end, no colour
    lines = SGR.sub("", written.getvalue()).split("\n")
    assert [line for line in lines if line.endswith(" ")] == []


def test_verbs_are_grouped_by_purpose() -> None:
    shown = run_vhostcomm("--help", env=NARROW).stdout
    titles = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert titles == [*VERBS_BY_TITLE]
    listed = re.findall(r"^  ([a-z]+)[ ,]", shown, re.MULTILINE)
    assert listed == [name for verbs in VERBS_BY_TITLE.values() for name in verbs]


def _help(*words: str) -> str:
    return " ".join(run_vhostcomm(*words, "--help", env=NARROW).stdout.split())


@pytest.mark.slow
def test_help_says_what_each_flag_does_for_its_verb() -> None:
    shown = _help()
    assert "-h, --help Show this help." in shown
    assert "-V, --version Print the versions of vhostcomm, Python and QEMU." in shown
    for verb in "guests", "reload", "shutdown":
        shown = _help(verb)
        assert "--cluster etcd://HOST:PORT,… The etcd to find the hosts in: its members" in shown
        assert "acquires a lock" not in shown
    for verb in "serve", "run":
        shown = _help(verb)
        assert "`run`" not in shown
        assert ("The daemon publishes its guests there." in shown) == (verb == "serve")
        assert ("A lock there keeps other hosts from starting the guest." in shown) == (verb == "run")
        assert "find the hosts" not in shown
        assert "--control ADDRESS The daemon's address" in shown
        assert shown.index("--cluster etcd") < shown.index("--cluster-ca") < shown.index("--cluster-host")
    examples = shown.partition("For example: ")[2].partition(" Arguments: ")[0]
    assert examples.count("vhostcomm run ") == examples.count(" # ") == 5


@pytest.mark.slow
def test_verb_help_prints_the_same_as_the_flag() -> None:
    assert run_vhostcomm("help", "config", "show").stdout == run_vhostcomm("config", "show", "--help").stdout
    assert run_vhostcomm("help").stdout == run_vhostcomm("--help").stdout == run_vhostcomm().stdout
