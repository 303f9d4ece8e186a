"""A daemon and the command behind it, pasted together: the command waits for a daemon that is just starting, and for no other."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, PATIENCE, VHOSTCOMM, Serving
from vhostcomm.starting import is_daemon

OURS = shlex.join(VHOSTCOMM)


def pasted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Lines at full speed, in a shell whose daemons end with it."""
    ending = "\nstatus=$?; kill $(jobs -p); wait; exit $status\n"
    return subprocess.run(
        ["bash", "-c", script.replace("vhostcomm ", f"{OURS} ") + ending],
        env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}, cwd=folder, timeout=PATIENCE * 2,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_probe_waits_for_the_daemon_before_it(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock nas=./nas >serve.log &\nvhostcomm probe --sock ./nas", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "GUEST_SERIAL" in done.stdout


@pytest.mark.slow
def test_a_verb_finds_the_daemon_before_it(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock nas=./nas >serve.log &\nvhostcomm guests", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nas" in done.stdout


@pytest.mark.slow
def test_a_verb_waits_where_it_says_that_the_daemon_listens(tmp_path: Path) -> None:
    script = "vhostcomm serve --sock ./nas --control ./c >serve.log &\nvhostcomm guests --control ./c"
    done = pasted(script, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_verb_waits_for_a_guest_of_the_second_daemon(tmp_path: Path) -> None:
    first = ("--sock", tmp_path / "one", "--control", tmp_path / "control.sock")
    with Serving(*first, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}):
        done = pasted("vhostcomm serve --sock two=./two >serve.log &\nvhostcomm info two", tmp_path)
    assert (done.returncode, "QEMU is not connected to" in done.stderr) == (1, True), done.stderr
    assert "two" in done.stdout


@pytest.mark.slow
def test_a_daemon_that_fails_is_waited_for_no_longer(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock ./none/nas >serve.log 2>&1 &\nvhostcomm probe --sock ./none/nas", tmp_path)
    assert done.returncode == 1
    assert "There is no such socket" in done.stderr


def test_without_a_daemon_there_is_one_attempt(tmp_path: Path) -> None:
    program = "from vhostcomm.starting import attempts; print(len([*attempts()]))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)},
        timeout=PATIENCE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("line", "daemon"),
    [
        ("/usr/bin/python3 /opt/vhostcomm/bin/vhostcomm serve --sock x", True),
        ("python -m vhostcomm run --boot x", True),
        ("sudo vhostcomm serve", True),
        ("python3 ./vdsm_run.py --boot x", True),
        ("/usr/bin/python3 /usr/bin/qemu-host -addr=/x", True),
        ("python -m vhostcomm guests", False),
        ("vhostcomm help serve", False),
        ("tail -f /var/log/vhostcomm", False),
        ("vim serve", False),
        ("", False),
    ],
)
def test_daemons_are_known_by_their_command(line: str, daemon: bool) -> None:
    assert is_daemon(line.split()) is daemon
