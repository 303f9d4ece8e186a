"""The hookscript, run as Proxmox VE does: as an executable, with the VM's number and the phase."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.control.controlled import Answers, answering, controlled
from tests.forked import forking
from tests.needs import need
from tests.serving import ENVIRONMENT, TIMEOUT, Serving, fake_guest, run_vhostcomm

POWEROFF = 6

BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""The environment of a service such as Proxmox VE's."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """vhostcomm, installed in a folder that is not in PATH."""
    made = tmp_path / "a program"
    made.symlink_to(forking(Path(sys.executable).with_name("vhostcomm"), ENVIRONMENT))
    return made


def hookscript(folder: Path, program: Path, *words: str, sock: str = "") -> Path:
    printed = run_vhostcomm(
        "snippet", "hookscript", "--sock", f"nas={sock or folder / 'nas'}", "--control", folder / "control",
        "--program", program, *(words or ("--unit", "none")),
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    made = folder / "hookscript"
    made.write_text(printed.stdout)
    made.chmod(0o755)
    return made


def phase(script: Path, *words: str, path: str = BARE["PATH"]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *words], env={"PATH": path}, cwd="/", capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def assert_left_to_proxmox(stopped: subprocess.CompletedProcess[str], why: str) -> None:
    """Assert that a phase prints a reason and succeeds, because Proxmox VE then stops the guest itself."""
    assert stopped.returncode == 0
    assert why in stopped.stderr
    assert "Proxmox VE continues with its own stop" in stopped.stderr


def test_phases_start_stop_and_clean_up(tmp_path: Path, program: Path) -> None:
    script = hookscript(tmp_path, program)
    with controlled(tmp_path) as (daemon, _):
        started = phase(script, "100", "pre-start")
        assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
        answers: Answers = {POWEROFF: lambda: None}
        with answering(tmp_path / "nas", answers) as guest:
            running = phase(script, "100", "post-start")
            assert (running.returncode, running.stdout, running.stderr) == (0, "", "")
            stopped = phase(script, "100", "pre-stop")
            assert (stopped.returncode, stopped.stderr) == (0, "")
            assert "nas: gone after" in stopped.stdout
            assert POWEROFF in guest.asked
        assert "vhostcomm/" in daemon.event("stop requested", how="power-off")["by"]
        ended = phase(script, "100", "post-stop")
        assert ended.returncode == 0
        assert "vhostcomm, VM 100:" in ended.stderr
        assert "absent, power-off requested" in ended.stderr


def test_stop_waits_for_a_booting_guest_but_not_without_qemu(tmp_path: Path, program: Path) -> None:
    script = hookscript(tmp_path, program, "--wait", "3600")
    with controlled(tmp_path) as (daemon, _):
        assert_left_to_proxmox(phase(script, "100", "pre-stop"), "not connected")
        with fake_guest(tmp_path / "nas"):
            daemon.event("guest connected")
            script = hookscript(tmp_path, program, "--wait", "1")
            assert_left_to_proxmox(phase(script, "100", "pre-stop"), "not ready")


@pytest.mark.slow
def test_proxmox_stops_a_guest_that_does_not_power_off(tmp_path: Path, program: Path) -> None:
    script = hookscript(tmp_path, program, "--wait", "1")
    with controlled(tmp_path), answering(tmp_path / "nas", {POWEROFF: b""}):
        assert_left_to_proxmox(phase(script, "100", "pre-stop"), "still there")


def test_a_daemon_that_hangs_does_not_hold_up_the_stop(tmp_path: Path, program: Path) -> None:
    """The control surface accepts the connection and never answers."""
    script = hookscript(tmp_path, program, "--wait", "1")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control"))
        silent.listen()
        assert_left_to_proxmox(phase(script, "100", "pre-stop"), "nas did not power itself off")


def test_a_guest_without_a_daemon(tmp_path: Path, program: Path) -> None:
    script = hookscript(tmp_path, program)
    refused = phase(script, "100", "pre-start")
    assert refused.returncode == 1
    assert "no daemon to ask" in refused.stderr
    assert "no daemon serves nas, so the VM is not started" in refused.stderr
    for later in ("post-start", "pre-stop", "post-stop"):
        assert phase(script, "100", later).returncode == 0


def test_a_daemon_that_serves_others(tmp_path: Path, program: Path) -> None:
    """The daemon serves nas-2, whose name contains nas."""
    script = hookscript(tmp_path, program)
    with Serving("--sock", f"nas-2={tmp_path}/nas-2", "--control", tmp_path / "control"):
        refused = phase(script, "100", "pre-start")
    assert refused.returncode == 1
    assert f"does not serve nas at {tmp_path}/nas, so the VM is not started" in refused.stderr


def test_hookscript_ignores_sockets_that_qemu_creates(tmp_path: Path, program: Path) -> None:
    sock = f"connect:{tmp_path}/qemus"
    script = hookscript(tmp_path, program, sock=sock)
    with Serving("--sock", f"nas={sock}", "--control", tmp_path / "control"):
        assert phase(script, "100", "pre-start").returncode == 0


def test_hookscript_starts_the_service(tmp_path: Path, program: Path) -> None:
    """Without systemd here, a program named systemctl starts a real daemon, as the service would."""
    script = hookscript(tmp_path, program, "--unit", "vhostcomm.service")
    tools = tmp_path / "tools"
    tools.mkdir()
    pid = tmp_path / "pid"
    (tools / "systemctl").write_text(
        f'#!/bin/sh\n[ "$*" = "start vhostcomm.service" ] || exit 9\n'
        f"'{program}' serve --sock nas={tmp_path}/nas --control {tmp_path}/control >{tmp_path}/log 2>&1 &\n"
        f"echo $! >{pid}\n"
    )
    (tools / "systemctl").chmod(0o755)
    started = phase(script, "100", "pre-start", path=f"{tools}:{BARE['PATH']}")
    try:
        assert (started.returncode, started.stderr) == (0, "")
        guests = run_vhostcomm("guests", "--json", "--control", tmp_path / "control")
        assert '"name": "nas"' in guests.stdout
    finally:
        os.kill(int(pid.read_text()), 15)


def test_a_service_that_does_not_start(tmp_path: Path, program: Path) -> None:
    script = hookscript(tmp_path, program, "--unit", "vhostcomm.service")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").symlink_to("/bin/false")
    refused = phase(script, "100", "pre-start", path=f"{tools}:{BARE['PATH']}")
    assert refused.returncode == 1
    assert "so the VM is not started: systemctl status vhostcomm.service" in refused.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "usage:"),
        (["100"], 2, "usage:"),
        (["100", "pre-migrate"], 0, "nothing to do for the phase pre-migrate"),
        (["100", "*"], 0, "nothing to do"),
    ],
)
def test_unexpected_arguments_of_the_hookscript(
    tmp_path: Path, program: Path, words: list[str], status: int, said: str
) -> None:
    ended = phase(hookscript(tmp_path, program), *words)
    assert ended.returncode == status
    assert said in ended.stderr


@pytest.mark.parametrize("words", [(), ("--unit", "vhostcomm.service", "--wait", "600")])
def test_shellcheck_accepts_the_hookscript(tmp_path: Path, program: Path, words: tuple[str, ...]) -> None:
    need("shellcheck")
    script = hookscript(tmp_path, program, *words)
    done = subprocess.run(
        ["shellcheck", "--enable=all", "--exclude=SC2250,SC2310,SC2312", script],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--control", "none"], "now it is disabled"),
        (["--control", "tcp:127.0.0.1:1", "--control-token", "0123456789abcdef"], "now it is TCP"),
        (
            ["--control", "tls:127.0.0.1:1", "--control-ca", "a", "--control-cert", "b", "--control-key", "c"],
            "now it is TCP",
        ),
        (["--wait", "0"], "--wait 0: expected seconds"),
    ],
)
def test_hookscript_that_could_not_work_is_rejected(tmp_path: Path, words: list[str], why: str) -> None:
    refused = run_vhostcomm("snippet", "hookscript", "--sock", f"nas={tmp_path}/nas", *words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr
