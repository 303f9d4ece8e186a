"""Each input of the corpus, on every Python, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, Input, steps
from vchannel import Role

CORPUS = Path(__file__).with_name("corpus")
INPUTS = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_of_the_corpus(path: Path) -> None:
    data = path.read_bytes()
    assert data, "the input is empty"
    TARGETS[path.parent.name](data)  # asserts the invariants after each step


def test_corpus_has_every_kind_of_step() -> None:
    kinds = {
        type(step)
        for path in INPUTS
        if path.parent.name == "connection"
        for step in steps(Input(path.read_bytes()[1:]), Role.HOST)
    }
    assert {kind.__name__ for kind in kinds} == {"bytes", "Ask", "Cut", "Forget", "Silence"}
