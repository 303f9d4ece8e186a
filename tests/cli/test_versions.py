"""`--version` prints the versions of vhostcomm, Python and QEMU, for any installed QEMU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import vhostcomm
from vhostcomm.cli import versions

ROOT = Path(__file__).parents[2]


def a_qemu(folder: Path, script: str) -> Path:
    path = folder / versions.QEMU
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("words", [["-m", "vhostcomm"], [ROOT / "vdsm_run.py"]], ids=["vhostcomm", "vdsm_run.py"])
def test_three_lines_with_the_qemu_that_is_found(tmp_path: Path, words: list[str | Path]) -> None:
    qemu = a_qemu(tmp_path, "echo 'QEMU emulator version 8.2.1 (Somebody 1:8.2)'; echo 'Copyright'")
    done = subprocess.run(
        [sys.executable, *words, "--version"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        f"vhostcomm {vhostcomm.__version__}",
        f"Python {platform.python_version()}",
        f"QEMU 8.2.1 (Somebody 1:8.2) ({qemu})",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "QEMU not found"),
        ("exit 1", "QEMU unknown: {}: it prints no version"),
        ("echo 'QEMU emulator version'", "QEMU unknown: {}: it prints no version"),
        ("printf 'QEMU emulator version \\033[2J'", "QEMU unknown: {}: it prints no version"),
        ("echo 'qemu: no memory' >&2; exit 1", "QEMU unknown: {}: qemu: no memory"),
        ("exec sleep 60", "QEMU unknown: {}: no answer"),
    ],
)
def test_version_is_printed_for_any_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, line: str
) -> None:
    path = a_qemu(tmp_path, script) if script else tmp_path
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    monkeypatch.setattr(versions, "TIMEOUT", 0.5)
    assert versions.version_text().splitlines()[2] == line.format(path)


def test_a_qemu_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_qemu(tmp_path, "")
    path.write_bytes(b"\x7fELF and nothing behind it")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.version_text().splitlines()[2] == f"QEMU unknown: {path}: Exec format error"
