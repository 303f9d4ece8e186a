"""What every test may ask for."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import need, remedy

# Ignored where the tests run under nohup or behind a shell's &, and then the programs they start would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip unless these programs of tests/packages are installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    need(*(program for mark in item.iter_markers("needs") for program in mark.args))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Behind the list of skipped tests, the command that installs what they need."""
    reports = terminalreporter.getreports("skipped")
    if command := remedy([each.longrepr[2] for each in reports if isinstance(each.longrepr, tuple)]):
        terminalreporter.write_line(f"To run what was skipped for a missing package: {command}")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short path, for sockets with long names: 107 bytes is all there is."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)
