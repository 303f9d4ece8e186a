"""Tables: whole lines in a pipe, no folded cells on a terminal of 80 columns, addresses of guests."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.control.controlled import INFORMATION, answering, controlled
from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, Serving, run_vhostcomm
from vchannel import GuestCommand
from vhostcomm.cli.output import print_table
from vhostcomm.log.logs import start_log
from vhostcomm.probe import QUESTIONS


def on_terminal(*words: str | Path) -> str:
    """Return a verb's output on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    try:
        command = [*VHOSTCOMM, *map(str, words)]
        environment = ENVIRONMENT | {"COLUMNS": "80", "TERM": "xterm-256color"}
        subprocess.run(command, stdout=theirs, env=environment, timeout=TIMEOUT, check=True)
    finally:
        os.close(theirs)
    shown = b""
    try:
        while got := os.read(ours, 65536):
            shown += got
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_guests_shows_the_address_without_info(tmp_path: Path) -> None:
    with controlled(tmp_path), answering(tmp_path / "nas", {GuestCommand.GET_INFORMATION: INFORMATION}):
        done = run_vhostcomm("guests", "--control", tmp_path / "control")
    assert (done.returncode, done.stderr) == (0, "")
    assert "10.0.2.15" in done.stdout


@pytest.mark.slow
def test_a_narrow_terminal_gets_lists_and_no_folded_cells(tmp_path: Path) -> None:
    with controlled(tmp_path), answering(tmp_path / "nas", {GuestCommand.GET_INFORMATION: INFORMATION}):
        shown = on_terminal("guests", "--control", tmp_path / "control")
    plain = re.sub(r"\x1b\[[01]m", "", shown)
    assert "\x1b" not in plain  # only bold and its end, no colour
    lines = plain.splitlines()
    assert lines[0] == "nas"
    assert "  address  10.0.2.15" in lines
    assert f"  socket   {tmp_path / 'nas'}" in lines
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.slow
def test_a_narrow_terminal_gets_the_table_of_probe_with_its_long_answers_whole(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--guest-serial", "1234ABC567890"):
        lines = re.sub(r"\x1b\[[01]m", "", on_terminal("probe", tmp_path / "nas")).splitlines()
    assert re.search(r"^COMMAND +MS +ANSWER$", lines[0])
    assert [line for line in lines if re.search(r"^ 5 GUEST_SERIAL +[0-9.]+ +1234ABC567890$", line)]
    assert [line for line in lines if re.search(r"^ 8 VMM_VERSION +[0-9.]+ +\{.{80,}\}$", line)]
    assert len(lines) == 1 + len(QUESTIONS)


def test_a_table_has_no_padding_and_no_folded_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "why"), [("a", "x" * 200), ("nas", "")])
    assert capsys.readouterr().out == f"name  why\na     {'x' * 200}\nnas\n"


@pytest.mark.slow
def test_guests_keeps_the_state_of_a_guest_without_an_answer(tmp_path: Path) -> None:
    with controlled(tmp_path), answering(tmp_path / "nas", {}):
        first, second = (run_vhostcomm("guests", "--control", tmp_path / "control") for _ in range(2))
    assert (first.returncode, second.returncode, first.stderr + second.stderr) == (0, 0, "")
    assert re.search(r"^nas +ready ", first.stdout, re.MULTILINE)
    assert re.search(r"^nas +ready ", second.stdout, re.MULTILINE)


def test_the_log_has_no_yellow_or_white(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    levels = ["debug", "info", "warning", "error"]
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        log, sink = start_log("debug", "console", terminal)
        for level in levels:
            log.log(logging.getLevelNamesMapping()[level.upper()], "guest ready", guest="nas")
        sink.close(TIMEOUT)
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert re.findall(r"\[\x1b\[\d+m\x1b\[1m(\w+) *\x1b", shown) == levels
    assert not re.search(r"\x1b\[(33|37|93|97)m", shown)
