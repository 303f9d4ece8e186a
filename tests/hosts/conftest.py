"""One booted machine for all tests; none of our units is there when a test starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import images  # noqa: F401 - a fixture
from tests.hosts.booted import PROGRAM, Booted, booted
from tests.hosts.folders import copy_of, debian, need_root, one_file
from tests.needs import need

SYSTEMD = (
    "systemd-sysv", "dbus", "udev", "python3", "procps", "libnss-systemd", "qemu-system-x86", "qemu-utils", "fdisk",
    "tshark",
)  # fmt: skip
NEXT = ("systemd-sysv", "dbus", "python3", "procps", "libnss-systemd", "tshark")
"""Packages of the machine with the next Debian release."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("hosts")
            item.add_marker(pytest.mark.timeout(1200))  # with the Debian folder and the images


@contextmanager
def with_program(folder: Path, program: Path, work: Path) -> Iterator[Booted]:
    """Boot a copy of a folder, with vhostcomm as one file in it."""
    with copy_of(folder, work) as root:
        target = root / PROGRAM.lstrip("/")
        target.parent.mkdir(parents=True)
        shutil.copy(program, target)
        with booted(root, work) as machine:
            yield machine


@pytest.fixture(scope="session")
def bootable() -> None:
    """Skip before anything is built for a machine that can't be booted."""
    need_root()
    need("mmdebstrap", "systemd-nspawn")


@pytest.fixture(scope="session")
def onefile(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vhostcomm as one file, for the machines."""
    return one_file(tmp_path_factory.mktemp("onefile"))


@pytest.fixture(scope="session")
def booted_once(onefile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with with_program(debian("systemd", SYSTEMD), onefile, tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="session")
def next_release(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Debian 13 with its systemd."""
    folder = debian("next", NEXT, "trixie")
    work = tmp_path_factory.mktemp("next")
    with copy_of(folder, work) as root, booted(root, work) as machine:
        yield machine


@pytest.fixture
def machine(booted_once: Booted) -> Iterator[Booted]:
    """A machine with systemd, without our units."""
    yield booted_once
    booted_once.clear()
