"""Debian packages of programs, and skipping of tests whose programs are missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

_LINES: Final = [
    line.split(maxsplit=3)
    for line in Path(__file__).with_name("packages").read_text().splitlines()
    if line and not line.startswith("#")
]
PACKAGES: Final = {what: package for _, what, package, _ in _LINES}
"""The package of each program and file that `make test` installs."""

_BUILDING: Final = {what for group, what, *_ in _LINES if group == "guest"}
_REMEDY: Final = "sudo apt-get install "


def missing(what: str) -> bool:
    """Return whether a program, or a file given by its path or a pattern, is not installed."""
    if what.startswith("/"):
        return not list(Path("/").glob(what[1:]))
    return shutil.which(what, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None


def need(*names: str) -> None:
    """Skip the running test unless all programs are installed; `guest` means all programs for the build of the guest."""
    wanted = dict.fromkeys(what for name in names for what in (sorted(_BUILDING) if name == "guest" else [name]))
    lacking = [what for what in wanted if missing(what)]
    if lacking:
        packages = " ".join(sorted({PACKAGES[what] for what in lacking}))
        pytest.skip(f"missing {', '.join(lacking)}: {_REMEDY}{packages}")


def remedy(reasons: list[str]) -> str:
    """Return the command that installs all packages of skipped tests, or an empty string."""
    packages = {each for reason in reasons for each in re.findall(rf"{_REMEDY}(.+)", reason)}
    names = sorted({name for each in packages for name in each.split()})
    return f"{_REMEDY}--no-install-recommends {' '.join(names)}" if names else ""
