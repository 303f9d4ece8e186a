"""`--version`: the versions of vhostcomm, Python and QEMU."""

from __future__ import annotations

import platform
import shutil
import subprocess
from typing import Final

from vhostcomm import __version__
from vhostcomm.cli.output import print_line
from vhostcomm.linux.environment import child_environment
from vhostcomm.text import escape

QEMU: Final = "qemu-system-x86_64"
"""The program that `run` starts by default."""

TIMEOUT: Final = 5.0
"""Seconds: QEMU answers within 0.1, or 1 from a cold disk."""


def version() -> None:
    """Show the versions of vhostcomm, Python and QEMU."""
    print_line(version_text())


def version_text() -> str:
    return f"vhostcomm {__version__}\nPython {platform.python_version()}\n{_qemu()}"


def _qemu() -> str:
    path = shutil.which(QEMU)
    if path is None:
        return "QEMU not found"
    try:
        done = subprocess.run(  # noqa: S603 - what `run` would start
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
            env=child_environment(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"QEMU unknown: {path}: {getattr(error, 'strerror', None) or 'no answer'}"
    _, found, said = done.stdout.decode(errors="replace").partition("\n")[0].partition(" version ")
    if found and said.isprintable():
        return f"QEMU {said} ({path})"
    complaint = escape(done.stderr.decode(errors="replace").strip().partition("\n")[0])
    return f"QEMU unknown: {path}: {complaint or 'it prints no version'}"
