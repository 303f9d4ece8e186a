"""The Containerfile, as far as it can be tried without a container engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.wheel import ROOT, build, check_wheel

CONTAINERFILE = ROOT / "Containerfile"


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_enough_to_build_from(tmp_path: Path) -> None:
    copies = [line.split()[1:] for line in CONTAINERFILE.read_text().splitlines() if line.startswith("COPY ")]
    copied = [(name, target) for *names, target in copies if not names[0].startswith("--") for name in names]
    assert len(copied) > 5
    for name, target in copied:
        source, there = ROOT / name, tmp_path / "src" / (target + Path(name).name if target.endswith("/") else target)
        there.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, there)
    check_wheel(build("wheel", tmp_path / "src", tmp_path / "made"))
