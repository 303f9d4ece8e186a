"""Standard output of every verb where it is full, closed or read no longer: one line, and the documented exit status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.captures.make_golden import FOLDER
from tests.cli.test_streams import shell
from tests.cli.verbs import all_verbs
from tests.control.controlled import INFORMATION, answering, controlled
from tests.serving import Serving

LONG = str(FOLDER / "damage.jsonl")

FULL = "vhostcomm: standard output: No space left on device; make room there, or choose another place\n"
CLOSED = "vhostcomm: standard output is closed, nothing can be printed; redirect it to a file, or to /dev/null\n"
WORK = [
    ["version"],
    ["help", "serve"],
    ["config", "show"],
    ["completion", "bash"],
    *(["snippet", kind, "--sock", "nas=/run/nas"] for kind in ("qemu", "libvirt", "hookscript", "systemd", "compose")),
    ["snippet", "proxmox", "--sock", "nas=/run/nas", "--vmid", "100"],
    ["capture", "show", LONG],
    ["capture", "redact", LONG],
]
ASKING = [["guests"], ["guests", "--json"], ["info"], ["info", "--json"], ["call", "2"]]
TRIED = {" ".join(words[:2]) for words in WORK} | {words[0] for words in ASKING} | {"probe"}
HELPED = [words for words in all_verbs() if " ".join(words) not in {*TRIED, "help"}]
"""Verbs whose work prints nothing, changes something, or has no end; they have their help to print."""


def fails_in_one_line(*words: str, **more: str) -> None:
    """A snippet's notes come before that line, on standard error too."""
    full = shell('"$@" >/dev/full', *words, **more)
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr.endswith(FULL)
    closed = shell('"$@" >&-', *words, **more)
    assert (closed.returncode, closed.stdout) == (1, "")
    assert closed.stderr.endswith(CLOSED)
    notes = full.stderr.removesuffix(FULL)
    assert closed.stderr.removesuffix(CLOSED) == notes
    unread = shell('"$@" | :', *words, **more)
    assert (unread.returncode, unread.stdout, unread.stderr) == (0, "", notes)
    assert notes == "" or words[0] == "snippet"


@pytest.mark.parametrize("words", HELPED, ids=" ".join)
def test_help_of_verbs(words: tuple[str, ...]) -> None:
    fails_in_one_line(*words, "--help")


@pytest.mark.parametrize("words", WORK, ids=lambda words: " ".join(words[:2]))
def test_work_of_verbs_without_a_daemon(words: list[str]) -> None:
    fails_in_one_line(*words)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("daemon")
    with controlled(folder), answering(folder / "nas", {10: INFORMATION, 2: b"10.0.2.15\0"}):
        yield folder / "control"


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_work_of_verbs_that_ask_a_daemon(words: list[str], control: Path) -> None:
    fails_in_one_line(*words, VHOSTCOMM_CONTROL=str(control))


def test_probe(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--control", "none"):
        fails_in_one_line("probe", "--sock", str(tmp_path / "nas"))
