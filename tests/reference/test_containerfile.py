"""The Containerfile, as far as it can be tested without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.qemu_host.running import QEMU_HOST
from tests.serving import end, until
from tests.wheel import ROOT, build, check_wheel

CONTAINERFILE = ROOT / "Containerfile"


def test_hadolint_accepts_the_containerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_the_copied_files_are_enough_to_build(tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_health_of_qemu_host_needs_only_python(tmp_path: Path) -> None:
    (words,) = re.findall(r"CMD (\[\"python3\".*\])$", CONTAINERFILE.read_text(), re.MULTILINE)
    _, flag, code = json.loads(words)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        check = [sys.executable, "-I", "-S", flag, code.replace(":2210", f":{port}")]
        assert b"refused" in subprocess.run(check, capture_output=True, check=False).stderr
    process = subprocess.Popen([QEMU_HOST, f"-addr=unix:{tmp_path}/sock", f"-api=127.0.0.1:{port}"])
    try:
        until(lambda: accepts(port))
        subprocess.run(check, check=True)
    finally:
        end(process)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
