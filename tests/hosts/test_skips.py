"""What `make hosts` prints if it can run none of its tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.serving import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def test_each_skipped_test_has_its_reason_and_the_last_line_counts_them() -> None:
    nothing = ENVIRONMENT | {"PATH": "/nonexistent", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "hosts", "-k", "not two_builds and not skipped_test", "tests/hosts"],
        cwd=ROOT, env=nothing, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    *_, last = done.stdout.splitlines()
    counted = re.fullmatch(r"(\d+) skipped, \d+ deselected in .*", last)
    assert counted, done.stdout
    reasons = re.findall(r"(?m)^SKIPPED \[(\d+)\] .*: missing (?:right|[\w/.*-]+)", done.stdout)
    assert sum(map(int, reasons)) == int(counted[1]), done.stdout
