"""Help, as a terminal of 80 columns shows it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tests.serving import ENVIRONMENT, run_vhostcomm
from tools.verbs import Verb, command_line
from vhostcomm.cli.app import app

VERBS = list(command_line().all())
NARROW = ENVIRONMENT | {"COLUMNS": "80"}


def test_commands_to_paste_stay_whole_and_stand_together() -> None:
    shown = run_vhostcomm("completion", "--help", env=NARROW).stdout
    assert """
    source <(vhostcomm completion bash)         # in ~/.bashrc
    source <(vhostcomm completion zsh)          # in ~/.zshrc, behind compinit
    vhostcomm completion fish | source          # in ~/.config/fish/config.fish

""" in re.sub(r" +$", "", shown, flags=re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_says_what_a_value_is_and_no_more_than_that(verb: Verb) -> None:
    written = io.StringIO()
    app.help_print([*verb.words[1:]], console=Console(file=written, width=80))
    shown = re.sub(r" +$", "", written.getvalue(), flags=re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80
    assert verb.summary.split()[0] in shown
    for noise in ("STR", "FLOAT", "default: None", "default: False", 'default: ""', "ImageFormat", "\n\n\n"):
        assert noise not in shown
