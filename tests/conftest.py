"""What every test may ask for, and what every test leaves behind: nothing."""

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
"""Environment variables that name folders which users, or the machine's own daemons, share."""


def _be_private() -> Path:
    """Give this session folders of its own, and its children signals that are not ignored; returns the folders' parent."""
    outer = Path(tempfile.gettempdir(), os.environ.get(MARK, ""))  # a worker's is its controller's
    home = Path(tempfile.mkdtemp(prefix="vt-", dir=outer if outer.is_dir() else None))
    # The builds of the stand-in guest and QEMU 10 are shared: they are locked, and keyed by what they are made of.
    os.environ.setdefault("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    for name in _PRIVATE:
        os.environ[name] = str(home / name.lower())
        Path(os.environ[name]).mkdir(mode=0o700)
    # A daemon looks for others beside its runtime directory too.
    os.environ["RUNTIME_DIRECTORY"] += "/vhostcomm"
    os.environ[MARK] = str(home.relative_to(tempfile.gettempdir()))
    # `nohup` and background jobs have signals ignored, and children inherit that. A handler becomes the default in a child.
    for number in signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return home


_STUCK: Final = "240"
"""Seconds in a test's setup, call or teardown after which its process ends and writes every thread's stack to stderr.

pytest-timeout fails a test after 120 s, once, by a signal. A lock in C ignores that, and a cleanup that waits for ever
after it, or after a failure, has no limit. The controller of several processes names the test whose process ended.
"""

_HOME: Final = _be_private()  # at once: other folders' conftest.py read the environment when they are imported


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
    """No deadline: an example is right or wrong, however long a busy machine takes for it."""
    try:
        from hypothesis import HealthCheck, Phase, settings
    except ImportError:  # an installation without it, in which tests that need none are tried
        return
    settings.register_profile("vhostcomm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    # For `make mutants`, which only asks whether a test fails: the same examples each time, and no search for a smaller one.
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
    """Mark what depends on which QEMU is run: `make qemu10` runs nothing else again. `make quick` runs no such program."""
    for item in items:
        needs_qemu = bool({"program", "images"} & set(getattr(item, "fixturenames", ())))
        if needs_qemu or item.get_closest_marker("needs"):
            item.add_marker("slow")
        if needs_qemu and not item.get_closest_marker("any_qemu"):
            item.add_marker("qemu")
    items[:] = _spread(items)


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Put tests with a whole guest between the modules of the others, at equal distances.

    A guest in an emulator keeps a core busy, while most other tests wait half of the time. Folder by folder, all processes
    would first run the tests that wait, and then all guests. A module stays together, with its fixtures.
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
    """End the process later. For each phase anew: pytest forgets the limit when a phase fails."""
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
    """Behind the list of skipped tests, the command that installs what they need."""
    reports = terminalreporter.getreports("skipped")
    if command := remedy([each.longrepr[2] for each in reports if isinstance(each.longrepr, tuple)]):
        terminalreporter.write_line(f"To run what was skipped for a missing package: {command}")


def pytest_unconfigure() -> None:
    for pid in processes_marked(os.environ[MARK]):  # a worker that was ended could not end what it had started
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test neither a process nor a mount is left of them."""
    yield
    end_forker()
    assert not processes_marked(os.environ[MARK]), "tests have left processes behind"
    assert not mounts_below(_HOME, tmp_path_factory.getbasetemp()), "tests have left mounts behind"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of its own with a short path, for sockets with long names: 107 bytes is all there is."""
    with tempfile.TemporaryDirectory(prefix="v") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def etcd_members(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """The members of a real etcd for a module, which says how many in `ETCD_MEMBERS`."""
    from tests.cluster.etcd import running

    with running(tmp_path_factory.mktemp("etcd"), request.module.ETCD_MEMBERS) as etcd:
        yield etcd


@pytest.fixture
def etcd(etcd_members: Etcd) -> Iterator[Etcd]:
    """They have no keys before a test, and run again after it."""
    etcd_members.clear()
    yield etcd_members
    etcd_members.heal()
