"""The QEMU that the tests run, and a check that a test leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import need
from tests.qemu.roms import IDLE
from tests.qemu.running import guest
from tests.trio_help import run_in_real_time
from vhostcomm.qemu.capabilities import Capabilities, Program
from vhostcomm.qemu.detect import find_capabilities


@pytest.fixture(scope="session")
def program() -> Program:
    """The QEMU of VHOSTCOMM_QEMU, with the folders in VHOSTCOMM_QEMU_DATA (colons between them); else the installed QEMU."""
    path = os.environ.get("VHOSTCOMM_QEMU", "qemu-system-x86_64")
    if path == "qemu-system-x86_64":
        need(path)
    folders = os.environ.get("VHOSTCOMM_QEMU_DATA", "")
    return Program(path, tuple(folders.split(":")) if folders else ())


@pytest.fixture(scope="session")
def can(program: Program) -> Capabilities:
    return run_in_real_time(lambda: find_capabilities(program, try_kvm=False))


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Check that the test leaves no new child, dead or alive, and no new open descriptor."""
    before = descriptors(), children()
    yield
    assert (descriptors(), children()) == before


def children() -> set[str]:
    return {pid for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}


def descriptors() -> dict[str, str]:
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        try:
            found[each.name] = str(each.readlink())
        except FileNotFoundError:  # the descriptor that lists the folder
            continue
    return found


@pytest.fixture(scope="session")
def standin(can: Capabilities) -> dict[str, str]:
    """The stand-in guest's files: KERNEL, INITRAMFS, … They are built if missing."""
    need("guest")
    script = Path(__file__).parents[1] / "guest/build.sh"
    listing = subprocess.run([script, "--print-paths"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(line.split("=", 1) for line in listing.splitlines())


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The path for an image."""
    return tmp_path / "sys.img"


@pytest.fixture
def idle(can: Capabilities, tmp_path: Path) -> list[str]:
    """The command of a QEMU whose guest does nothing, forever."""
    return guest(can, tmp_path, IDLE)
