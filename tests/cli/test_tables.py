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


def on_terminal(*words: str | Path, errors: bool = False) -> str:
    """Return a verb's output on a terminal of 80 columns, or with `errors` what it writes to standard error."""
    ours, theirs = pty.openpty()
    try:
        command = [*VHOSTCOMM, *map(str, words)]
        environment = ENVIRONMENT | {"COLUMNS": "80", "TERM": "xterm-256color"}
        out, err = (subprocess.DEVNULL, theirs) if errors else (theirs, None)
        subprocess.run(command, stdout=out, stderr=err, env=environment, timeout=TIMEOUT, check=True)
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


@pytest.mark.slow
def test_a_narrow_terminal_gets_the_values_and_sources_of_config_as_a_table(tmp_path: Path) -> None:
    """Only the source of a row that is too long is on a line of its own, and every value is whole."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    config = long / "c.toml"
    config.write_text('[host]\nmodel = "box"\n[guests.nas]\nsock = "/run/nas"\nvcpus = 3\n')
    lines = on_terminal("config", "show", "--config", config).splitlines()
    host, guest = lines[lines.index("[host]") :], lines[lines.index("[guests.nas]") :]
    assert re.fullmatch(r"serial +0000000000000 +default", host[1])
    assert re.fullmatch(r"model +box", host[3])
    assert host[4] == f"  {config}: host.model"
    assert re.fullmatch(r"build +69057 +default", host[5])
    assert host[1].index("default") == host[5].index("default")
    assert re.fullmatch(r"sock +/run/nas", guest[1])
    assert guest[2] == f"  {config}: guests.nas.sock"
    assert [line for line in lines if line != line.rstrip()] == []
    assert all(len(line) <= 80 or line.startswith(f"  {config}: ") for line in lines)


def test_a_table_whose_rows_are_all_too_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("", "", ""), [("key", "v" * 80, "source")], below=True)
    assert capsys.readouterr().out == f"key  {'v' * 80}\n  source\n"
    print_table(("", "", ""), [("key", "value", "source"), ("a", "b", "c" * 68)], below=True)
    assert capsys.readouterr().out == f"key  value  source\na    b      {'c' * 68}\n"


@pytest.mark.slow
def test_remarks_are_broken_on_a_terminal_only(tmp_path: Path) -> None:
    words = ("snippet", "systemd", "--sock", f"nas={tmp_path}/a  b/nas", "--unit", "vhostcomm-run@.service")
    shown = on_terminal(*words, errors=True)
    piped = run_vhostcomm(*words).stderr
    copied = [line for line in piped.splitlines() if line.startswith("    ")]
    assert [line for line in shown.splitlines() if line.startswith("    ")] == copied
    assert f"    RUN=\"--sock 'nas={tmp_path}/a  b/nas' --boot synoboot.img --system system.img\"" in copied
    assert max(len(line) for line in shown.splitlines() if line not in copied) <= 80 < max(map(len, copied))
    assert all(line.startswith("vhostcomm: ") for line in piped.splitlines() if line not in copied)
    assert " ".join(shown.split()) == " ".join(piped.split())


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
