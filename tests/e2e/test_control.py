"""Calls and shutdowns of a guest in a real QEMU, through the control surface."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.control.controlled import answering, client, post
from tests.e2e.launched import BOOT_TIMEOUT, Console, Images, Launched, command_of
from tests.serving import ENVIRONMENT, Serving, run_vhostcomm, started


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb, with the time that a guest in an emulator needs."""
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(folder / "control")}
    return run_vhostcomm(*words, env=environment, timeout=100)


def launched(folder: Path, images: Images, *words: str, expect_exit: int = 0, **parameters: object) -> Launched:
    flags = [*images.direct(**parameters), "--control", str(folder / "control"), *words]
    return Launched(folder, *flags, expect_exit=expect_exit)


def test_information_freeze_reboot_and_a_shutdown_that_is_waited_for(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images) as run:
        early = ask(tmp_path, "info")
        if early.returncode == 1:  # the error names the first missing part at that time
            assert re.search("no daemon|QEMU is|the guest is up, but has no address yet", early.stderr)
        run.ready()
        done = ask(tmp_path, "info", "--json", "--timeout", "60")
        found = json.loads(done.stdout)
        assert (found["state"], found["information"]["http_port"]) == ("ready", 5000)
        # The guest has no network, so the error is the missing address.
        assert (done.returncode, found["problem"]) == (1, "the guest is up, but has no address yet")
        assert int(found["uptime"]) >= 0
        assert ask(tmp_path, "freeze", "--timeout", "60").returncode == 0
        run.console.says("vchannel: request 14 fs_freeze")
        assert ask(tmp_path, "thaw").returncode == 0
        run.console.says("vchannel: request 15 fs_unfreeze")
        rebooted = ask(tmp_path, "reboot", "--timeout", "60")
        assert rebooted.returncode == 0, rebooted.stderr
        assert "inferred" in rebooted.stderr
        run.event("machine reset")
        run.ready()
        assert json.loads(ask(tmp_path, "guests", "--json").stdout)[0]["state"] == "ready"
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert gone.returncode == 0, gone.stderr
        assert "gone" in gone.stdout
        run.console.says("reboot: Power down")
        assert 'says it is "vhostcomm/' in run.event("stop requested")["by"]
        assert "own power-off" in run.event("QEMU ended")["why"]
        assert run.ends() == 0
    run.console.kept_to_the_protocol()
    assert {each.name for each in tmp_path.iterdir()} == {"console"}


@pytest.mark.any_qemu
def test_freeze_reboot_and_shutdown_over_http(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images) as run:
        run.ready()
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(tmp_path / "control")), base_url="http://x", timeout=100
        ) as http:

            def done_of(verb: str, **body: object) -> dict[str, Any]:
                answer = http.post(f"/guests/vdsm/{verb}", json={"timeout": 60} | body)
                assert answer.status_code == 200, answer.text
                found: dict[str, Any] = answer.json()
                return found

            answer = done_of("call", command="get_information")["answer"]["json"]
            assert answer["data"]["dsm_setting"]["data"]["http_port"] == 5000
            health = http.get("/healthz")  # the guest has no network
            assert (health.status_code, "no address" in health.json()["unhealthy"]["vdsm"]) == (503, True), health.text
            assert int(done_of("call", command="get_uptime")["answer"]["text"]) >= 0
            assert done_of("freeze")["frozen_until"] == http.get("/guests/vdsm").json()["frozen_until"]
            run.console.says("vchannel: request 14 fs_freeze")
            done_of("thaw")
            run.console.says("vchannel: request 15 fs_unfreeze")
            done = http.post("/guests/vdsm/shutdown", json={"wait": 90})
        assert (done.status_code, done.json()["gone"]) == (200, True), done.text
        assert run.ends() == 0


@pytest.mark.any_qemu
def test_the_launcher_completes_a_shutdown_that_the_guest_ignores(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "12", ignore_poweroff=1) as run:
        run.ready()
        early = ask(tmp_path, "shutdown", "--wait", "0.5")
        assert (early.returncode, "being stopped, now by the guest's own power-off" in early.stderr) == (1, True), early
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert (gone.returncode, "stopped, by QMP quit" in gone.stdout) == (0, True), gone
        assert run.event("stopping QEMU", stage="QMP quit")["why"]
        assert run.ends() == 0


@pytest.mark.any_qemu
def test_a_shutdown_of_a_guest_that_never_comes_up(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), "--control", str(tmp_path / "control"), "--grace", "6") as run:
        run.event("QEMU runs")
        done = json.loads(ask(tmp_path, "shutdown", "--wait", "90", "--json").stdout)
        assert (done["answered"], done["gone"], done["exit_status"]) == (False, True, 0)
        assert run.ends() == 0


@pytest.mark.any_qemu
def test_shutdown_that_ends_in_a_kill_is_reported(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "1", expect_exit=8) as run:
        run.ready()
        os.kill(run.qemu_pid, signal.SIGSTOP)
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert (gone.returncode, "killed by vhostcomm" in gone.stdout) == (1, True), gone
        assert run.ends() == 8


@pytest.mark.any_qemu
def test_guest_that_never_reads_does_not_delay_calls_to_others(tmp_path: Path, images: Images) -> None:
    """Fifty calls to another guest are answered before the call to the guest that reads nothing has timed out."""
    sock, other, console = tmp_path / "sock", tmp_path / "other", Console(tmp_path / "console")
    command = command_of(
        *images.direct(), "--sock", str(sock), "--serial-console", str(console.path), "--name", "stuck"
    )
    served: list[str | Path] = [
        "--sock",
        f"stuck={sock}",
        "--sock",
        f"other={other}",
        "--control",
        tmp_path / "control",
    ]
    with (
        Serving(*served) as daemon,
        started(command, stdin=subprocess.DEVNULL) as qemu,
        answering(other, {2: b"10.0.2.15\0"}),
        client(tmp_path / "control") as http,
        ThreadPoolExecutor(24) as pool,
    ):
        try:
            daemon.timeout = BOOT_TIMEOUT
            daemon.event("guest ready", guest="stuck")
            console.says("vchannel: ready")
            qemu.send_signal(signal.SIGSTOP)
            for _ in range(60):  # more than the socket's buffer, so that the daemon itself can't send the rest
                assert post(http, "/guests/stuck/call", command=2, timeout=0.02)[0] == 504
            stuck = [pool.submit(post, http, "/guests/stuck/call", command=2, timeout=60) for _ in range(16)]
            others = list(pool.map(lambda _: post(http, "/guests/other/call", command=2, timeout=30)[0], range(50)))
            assert others == [200] * 50  # eight at a time
            assert not any(each.done() for each in stuck)
        finally:
            qemu.kill()


@pytest.mark.any_qemu
def test_crash_during_a_shutdown_is_reported(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "600", expect_exit=5, mode="never") as run:
        run.event("guest ready")
        with client(tmp_path / "control") as http, ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(post, http, "/guests/vdsm/shutdown", timeout=25)
            run.event("stop requested", how="power-off")
            os.kill(run.qemu_pid, signal.SIGKILL)
            status, done = stopping.result()
        assert (status, done["answered"], done["gone"], done["exit_status"]) == (200, False, True, 5), done
        assert "SIGKILL" in done["how"]
        assert run.ends() == 5
