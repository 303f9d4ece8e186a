"""Tests of each program as one file. tests/wheel.py builds the files in `VHOSTCOMM_ONEFILE` and runs these tests."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.qemu_host.running import QemuHost, ok
from tests.serving import ENVIRONMENT, TIMEOUT, fake_guest, started, until
from tools.onefile import DEBIAN, PROGRAMS, ROOT, interpreter
from vhostcomm import __version__

FOLDER: Final = Path(os.environ.get("VHOSTCOMM_ONEFILE", ""))


def call(program: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words], cwd=cwd, env=ENVIRONMENT, timeout=TIMEOUT, capture_output=True, text=True, check=False
    )


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with only the two programs."""
    for program in PROGRAMS:
        shutil.copy(FOLDER / program, tmp_path)
    return tmp_path


def test_name_of_the_file_chooses_the_program(alone: Path) -> None:
    assert call(alone / "vhostcomm", "--version", cwd=alone).stdout.startswith(f"vhostcomm {__version__}\n")
    assert "-guestsn" in call(alone / "qemu-host", "-help", cwd=alone).stdout
    (alone / "vdsm_run").symlink_to("vhostcomm")
    assert call(alone / "vdsm_run", "--help", cwd=alone).stdout.startswith("Usage: vdsm_run [")
    (alone / "host.bin").symlink_to("qemu-host")
    assert "-guestsn" in call(alone / "host.bin", "-help", cwd=alone).stdout


def test_qemu_host_runs_the_verbs_too(alone: Path) -> None:
    assert call(alone / "qemu-host", "serve", "--help", cwd=alone).stdout.startswith("Usage: vhostcomm serve")


def test_programs_start_as_in_the_container(alone: Path) -> None:
    """The file has the container's name, and the container's script is beside it."""
    (alone / "qemu-host").rename(alone / "host.bin")
    (alone / "print.sh").write_text("#!/bin/sh\necho printed\n")
    with QemuHost(alone, "-guestsn=1234abc567890", program=alone / "host.bin") as host, fake_guest(host.sock) as guest:
        assert guest.serial() == "1234ABC567890"
        until(lambda: "printed" in host.trace)
        assert host.get("/write?command=6") == ok("null")


def test_run_starts_qemu_from_one_file(alone: Path) -> None:
    """Another interpreter runs the step that starts QEMU, and must find that step in the archive."""
    for disk in ("boot.img", "system.img"):
        with (alone / disk).open("wb") as file:
            file.truncate(64 << 20)
    command = [
        str(alone / "vhostcomm"), "run", "--boot", "boot.img", "--system", "system.img", "--accel", "tcg", "--sock", "nas",
        "--serial-console", "none", "--control", "none", "--log-format", "json",
    ]  # fmt: skip
    with started(command, cwd=alone, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = iter(process.stderr)
        assert next((line for line in lines if '"QEMU runs"' in line), ""), process.wait(TIMEOUT)
        for _ in range(3):  # skip to the last stage, because nothing boots from an empty disk
            process.send_signal(signal.SIGTERM)
            assert next((line for line in lines if "stopping" in line), "")
        assert process.wait(TIMEOUT) is not None


@pytest.mark.parametrize("name", ["vhostcomm", "vhostcomm-1.pyz"])
def test_printed_units_and_scripts_name_the_file(name: str, alone: Path) -> None:
    file = (alone / "vhostcomm").rename(alone / name)
    sock = ["--sock", "d990d22a-e971-ef5f-a7b3-e6374e496b34"]
    unit = call(file, "snippet", "systemd", *sock, cwd=alone)
    assert f"ExecStart={file} serve" in unit.stdout, unit.stderr
    script = call(file, "snippet", "hookscript", *sock, "--unit", "none", "--control", "/control", cwd=alone)
    assert f"\nvhostcomm={file}\n" in script.stdout, script.stderr


def test_a_daemon_outlives_the_replacement_of_its_file(alone: Path) -> None:
    """An upgrade renames another archive over the file. The daemon still imports its modules from the old one."""
    command = [str(alone / "vhostcomm"), "serve", "--sock", "nas", "--control", f"{alone}/control"]
    with started(command, cwd=alone, stderr=subprocess.DEVNULL):
        until((alone / "control").is_socket)
        other = alone / "other"
        other.write_bytes(b"#!/bin/sh\nexit 1\n")
        other.rename(alone / "vhostcomm")
        with fake_guest(alone / "nas") as guest:
            assert guest.serial()
        asked = call(FOLDER / "vhostcomm", "guests", "--json", "--control", f"{alone}/control", cwd=alone)
        assert '"nas"' in asked.stdout, asked.stderr


@pytest.mark.parametrize("version", DEBIAN)
def test_bytecode_of_debians_pythons_is_used(version: str, alone: Path) -> None:
    command, environment = interpreter(version)
    script = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--version']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(sys.modules['vhostcomm.cli'].__file__)"
    )
    done = subprocess.run(
        [*command, "-c", script, alone / "vhostcomm"], env=environment | {"PATH": "/usr/bin"},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    tree = f"cp{version.replace('.', '')}"
    assert re.search(rf"^/proc/self/fd/\d+/{tree}/vhostcomm/cli/__init__.pyc\n\Z", done.stdout, re.MULTILINE), (
        done.stderr
    )
    assert f"Python {version}." in done.stdout


def test_start_has_the_syntax_of_old_pythons() -> None:
    """They must reach the error that they are too old."""
    ast.parse((ROOT / "tools/onefile_main.py").read_text(), feature_version=(3, 4))


def test_every_package_comes_with_its_licence() -> None:
    with zipfile.ZipFile(FOLDER / "vhostcomm") as archive:
        names = archive.namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    licensed = {name.partition("/")[0] for name in names if ".dist-info/" in name and "LICEN" in name.upper()}
    assert {package.partition("-")[0] for package in packages} >= {"vhostcomm", "trio", "attrs", "structlog"}
    assert packages == licensed


def test_nothing_is_written_beside_it(alone: Path) -> None:
    before = sorted(alone.rglob("*"))
    call(alone / "vhostcomm", "config", "show", cwd=alone)
    assert sorted(alone.rglob("*")) == before


def test_a_python_without_bytecode_for_it_runs_the_sources(alone: Path) -> None:
    """Other implementations can't read CPython's bytecode; importing the archive's sources directly has the same effect."""
    script = "import sys; sys.path[0:0] = [sys.argv[1]]\nimport vhostcomm.cli.app\nprint(vhostcomm.cli.app.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, alone / "vhostcomm"],
        capture_output=True, text=True, timeout=TIMEOUT, check=True,
    )  # fmt: skip
    assert done.stdout == f"{alone / 'vhostcomm'}/vhostcomm/cli/app.py\n"
