"""The QEMU that the tests run, and the stand-in guest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.launched import ROOT, Images
from tests.needs import need


@pytest.fixture(scope="session")
def images() -> Images:
    """The guest, built if missing, and the QEMU of VHOSTCOMM_QEMU with VHOSTCOMM_QEMU_DATA, else the installed QEMU."""
    qemu = os.environ.get("VHOSTCOMM_QEMU", "qemu-system-x86_64")
    if qemu == "qemu-system-x86_64":
        need(qemu)
    words = ["--qemu", qemu]
    for folder in filter(None, os.environ.get("VHOSTCOMM_QEMU_DATA", "").split(":")):
        words += ["--qemu-data", folder]
    need("guest")
    built = subprocess.run(
        [ROOT / "tests/guest/build.sh", "--print-paths"], stdout=subprocess.PIPE, text=True, check=True
    )
    paths = dict(line.split("=", 1) for line in built.stdout.splitlines())
    return Images(
        Path(paths["KERNEL"]),
        Path(paths["INITRAMFS"]),
        Path(paths["CMDLINE"]).read_text().strip(),
        Path(paths["BOOT_DISK"]),
        Path(paths["SYSTEM_DISK"]),
        Path(paths["DATA_DISK"]),
        tuple(words),
    )
