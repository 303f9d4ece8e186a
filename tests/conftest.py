"""Fixtures for every test, and checks that the tests leave nothing behind."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key as STDERR  # noqa: N812

from tests.forked import end_forker
from tests.leftovers import MARK, mounts_below, processes_marked
from tests.needs import need, remedy

if TYPE_CHECKING:
    from tests.cluster.etcd import Etcd

_PRIVATE: Final = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "HOME")
"""Environment variables of folders that users or the machine's own daemons share."""


def _be_private() -> Path:
    """Give this session separate folders, and its children default signals; return the folders' parent."""
    outer = Path(tempfile.gettempdir(), os.environ.get(MARK, ""))  # a worker uses its controller's folder
    home = Path(tempfile.mkdtemp(prefix="vt-", dir=outer if outer.is_dir() else None))
    # The builds of the stand-in guest and QEMU 10 are shared: they are locked, and their names contain a hash of their inputs.
    os.environ.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    for name in _PRIVATE:
        os.environ[name] = str(home / name.lower())
        Path(os.environ[name]).mkdir(mode=0o700)
    # A daemon also looks for others beside its runtime directory.
    os.environ["RUNTIME_DIRECTORY"] += "/vhostcomm"
    os.environ[MARK] = str(home.relative_to(tempfile.gettempdir()))
    # With `nohup` and in background jobs, signals are ignored, and children inherit that. A child resets a handler to the default.
    for number in signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return home


_STUCK: Final = "240"
"""Seconds in a test's setup, call or teardown after which its process ends and writes every thread's stack to stderr.

pytest-timeout fails a test after 120 s, once, by a signal. A lock in C ignores that signal, and a cleanup that waits
forever has no other limit. With several processes, the controller names the test whose process ended.
"""

_HOME: Final = _be_private()  # at the import, because that of other conftest.py files reads the environment


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "stuck", "seconds in a test's setup, call or teardown after which its process is ended", default=_STUCK
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skip unless these programs of tests/packages are installed")
    config.addinivalue_line("markers", "hosts: starts systemd or a container engine; given by tests/hosts/conftest.py")
    config.addinivalue_line("markers", "qemu: depends on which QEMU is run; given by tests/conftest.py")
    config.addinivalue_line(
        "markers", "any_qemu: is the same with any QEMU, which only has to be there or to be killed"
    )
    config.addinivalue_line(
        "markers",
        "slow: takes a second, or half a second of CPU with all its parameters; given to all that need a program",
    )
    _set_up_hypothesis()


def _set_up_hypothesis() -> None:
    """Set no deadline, because a busy machine may be slow at any example."""
    try:
        from hypothesis import HealthCheck, Phase, settings
    except ImportError:  # an installation without hypothesis, for tests that do not need it
        return
    settings.register_profile("vhostcomm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    # `make mutants` only needs to know whether a test fails: the same examples each time, and no search for smaller ones.
    settings.register_profile(
        "mutants",
        settings.get_profile("vhostcomm"),
        derandomize=True,
        database=None,
        max_examples=25,
        phases=[Phase.explicit, Phase.generate],
    )
    settings.load_profile("vhostcomm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that depend on QEMU's version, which `make qemu10` repeats, and slow tests, which `make quick` omits."""
    for item in items:
        needs_qemu = bool({"program", "images"} & set(getattr(item, "fixturenames", ())))
        if needs_qemu or item.get_closest_marker("needs"):
            item.add_marker("slow")
        if needs_qemu and not item.get_closest_marker("any_qemu"):
            item.add_marker("qemu")
    items[:] = _spread(items)


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Distribute the tests with a whole guest evenly among the other modules.

    An emulated guest keeps a core busy, while most other tests wait half of the time. In the order of folders, all processes
    would first run tests that wait, then only guests. The tests of a module stay together, to share its fixtures.
    """
    guests = [item for item in items if "e2e" in item.path.parts and "images" in getattr(item, "fixturenames", ())]
    among = set(guests)
    modules = [list(each) for _, each in groupby((item for item in items if item not in among), attrgetter("path"))]
    mixed: list[pytest.Item] = []
    for number, module in enumerate(modules):
        mixed += guests[len(guests) * number // len(modules) : len(guests) * (number + 1) // len(modules)]
        mixed += module
    return mixed or guests


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _limit(config: pytest.Config, more: float = 0) -> None:
    """Set the limit after which the process ends. Each phase sets it, because pytest clears it when a phase fails."""
    seconds = float(config.getini("stuck")) + more
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[STDERR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _limit(item.config)
    need(*(program for mark in item.iter_markers("needs") for program in mark.args))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    own = item.get_closest_marker("timeout")
    _limit(item.config, own.args[0] if own else 0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    _limit(item.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the command that installs missing packages after the list of skipped tests."""
    reports = terminalreporter.getreports("skipped")
    if command := remedy([each.longrepr[2] for each in reports if isinstance(each.longrepr, tuple)]):
        terminalreporter.write_line(f"To run what was skipped for a missing package: {command}")


def pytest_unconfigure() -> None:
    for pid in processes_marked(os.environ[MARK]):  # a worker that was killed could not end its children
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Check after the last test that no process and no mount remains."""
    yield
    end_forker()
    assert not processes_marked(os.environ[MARK]), "tests have left processes behind"
    assert not mounts_below(_HOME, tmp_path_factory.getbasetemp()), "tests have left mounts behind"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder with a short path, for sockets with long names: a socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def etcd_members(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """The members of a real etcd for a module, which sets their number in `ETCD_MEMBERS`."""
    from tests.cluster.etcd import running

    with running(tmp_path_factory.mktemp("etcd"), request.module.ETCD_MEMBERS) as etcd:
        yield etcd


@pytest.fixture
def etcd(etcd_members: Etcd) -> Iterator[Etcd]:
    """The etcd without keys. After the test, members that it stopped run again."""
    etcd_members.clear()
    yield etcd_members
    etcd_members.heal()
