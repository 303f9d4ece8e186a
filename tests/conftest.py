"""What every test may ask for, and what every test leaves behind: nothing."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.leftovers import MARK, mounts_below, processes_marked
from tests.needs import need, remedy

_PRIVATE: Final = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "HOME")
"""Environment variables that name folders which users, or the machine's own daemons, share."""


def _be_private() -> Path:
    """Give this session folders of its own, and its children signals that are not ignored; returns the folders' parent."""
    home = Path(tempfile.mkdtemp(prefix="vt-"))
    # The builds of the stand-in guest and QEMU 10 are shared: they are locked, and keyed by what they are made of.
    os.environ.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    for name in _PRIVATE:
        os.environ[name] = str(home / name.lower())
        Path(os.environ[name]).mkdir(mode=0o700)
    # A daemon looks for others beside its runtime directory too.
    os.environ["RUNTIME_DIRECTORY"] += "/vhostcomm"
    os.environ[MARK] = home.name
    # `nohup` and background jobs have signals ignored, and children inherit that. A handler becomes the default in a child.
    for number in signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return home


_HOME: Final = _be_private()  # at once: other folders' conftest.py read the environment when they are imported


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip unless these programs of tests/packages are installed")
    config.addinivalue_line("markers", "qemu: depends on which QEMU is run; given by tests/conftest.py")
    _set_up_hypothesis()


def _set_up_hypothesis() -> None:
    """No deadline: an example is right or wrong, however long a busy machine takes for it."""
    try:
        from hypothesis import HealthCheck, settings
    except ImportError:  # an installation without it, in which tests that need none are tried
        return
    settings.register_profile("vhostcomm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("vhostcomm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what depends on which QEMU is run: `make qemu10` runs nothing else again."""
    for item in items:
        if {"program", "images"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("qemu")


def pytest_runtest_setup(item: pytest.Item) -> None:
    need(*(program for mark in item.iter_markers("needs") for program in mark.args))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Behind the list of skipped tests, the command that installs what they need."""
    reports = terminalreporter.getreports("skipped")
    if command := remedy([each.longrepr[2] for each in reports if isinstance(each.longrepr, tuple)]):
        terminalreporter.write_line(f"To run what was skipped for a missing package: {command}")


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test neither a process nor a mount is left of them."""
    yield
    assert not processes_marked(_HOME.name), "tests have left processes behind"
    assert not mounts_below(_HOME, tmp_path_factory.getbasetemp()), "tests have left mounts behind"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short path, for sockets with long names: 107 bytes is all there is."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)
