"""The list of Debian packages, and tests that are skipped without them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.needs import PACKAGES, need, remedy

TESTS = Path(__file__).parents[1]


def test_every_needed_program_is_listed() -> None:
    calls = [
        found[1]
        for path in TESTS.rglob("test_*.py")
        for found in re.finditer(r"mark\.needs\(([^)]*)\)", path.read_text())
    ]
    names = {name for call in calls for name in re.findall(r'"([^"]+)"', call)}
    assert len(names) > 10
    assert names <= PACKAGES.keys()


def test_a_skipped_test_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="missing zsh: sudo apt-get install zsh"):
        need("zsh")
    (tmp_path / "zsh").write_text("#!/bin/sh\n")
    (tmp_path / "zsh").chmod(0o755)
    need("zsh")


def test_one_command_installs_all_missing_packages() -> None:
    reasons = ["missing zsh: sudo apt-get install zsh", "missing a, b: sudo apt-get install fish zsh", "no root"]
    assert remedy(reasons) == "sudo apt-get install --no-install-recommends fish zsh"
    assert remedy(["no root"]) == ""
