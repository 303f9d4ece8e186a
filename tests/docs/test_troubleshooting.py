"""The page on troubleshooting has exactly the program's log messages and errors."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.messages import logged, raised
from tests.docs.pages import ROOT, inline_code
from vhostcomm import errors
from vhostcomm.probe import COMPLAINTS

PAGE: Final = (ROOT / "docs/troubleshooting.md").read_text()
CODE: Final = [code for _, code in inline_code(PAGE)]

LOST: Final = "log lines were lost"
"""A message that does not use the log's methods."""

EXPLAINED: Final = {"ServeError", "PlaceError", "CallError", "ControlError", "DaemonGoneError", "HeldError"}

LEFT_OUT: Final = {
    "UsageError": "a mistake in the command line names the flag and gives an example",
    "ConfigError": "a mistake in the configuration names its place and gives an example",
    "CaptureError": "it names the file and the line",
    "DiskError": "it names the image and what to do",
    "EtcdError": "it names etcd's address and what it said",
    "TreeFileError": "it names the file and the system's error",
    "QemuError": "it names the QEMU and what to do",
    "InstallError": "it names the .pat or the folder and what to do",
    "MachineError": "it names the cause of the pause and what to do",
}

NO_MESSAGE: Final = {"", "tcp", "remedy"}
"""Errors that contain only a place and the system's message."""


@pytest.mark.slow
def test_every_warning_and_error_of_the_log_is_in_troubleshooting() -> None:
    missing = {text: where for text, where in logged().items() if text not in CODE}
    assert not missing
    assert LOST in CODE
    assert LOST in (ROOT / "vhostcomm/log/logs.py").read_text()


@pytest.mark.slow
def test_troubleshooting_has_no_stale_log_messages() -> None:
    log = PAGE.split("## By log message")[1].split("## By error message")[0]
    rows = [line.split("|")[1] for line in log.splitlines() if line.startswith("| `")]
    listed = [code for row in rows for _, code in inline_code(row)]
    assert len(listed) > 40
    assert set(listed) - {LOST} <= set(logged())


@pytest.mark.slow
def test_every_environmental_error_is_in_troubleshooting() -> None:
    missing = {text: where for text, where in raised(EXPLAINED).items() if text not in {*CODE, *NO_MESSAGE}}
    assert not missing


def test_every_kind_of_error_is_explained_or_left_out() -> None:
    assert errors.__doc__
    kinds = set(re.findall(r"── (\w+)", errors.__doc__))
    assert kinds <= EXPLAINED | set(LEFT_OUT)
    assert set(LEFT_OUT) <= kinds


def test_console_lines_of_the_guest_are_explained() -> None:
    lines = {line.partition(": ")[2] for lines in COMPLAINTS.values() for line in lines}
    assert len(lines) == 5
    assert lines <= set(CODE)
