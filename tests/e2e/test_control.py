"""A guest in a real QEMU, asked and told through the control surface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import httpx

from tests.e2e.launched import Images, Launched
from tests.serving import ENVIRONMENT, VHOSTCOMM


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A verb, with the patience that a guest in an emulator needs."""
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(folder / "control")}
    return subprocess.run(
        [*VHOSTCOMM, *words], env=environment, timeout=100, capture_output=True, text=True, check=False
    )


def launched(folder: Path, images: Images, *words: str, expect_exit: int = 0, **parameters: object) -> Launched:
    flags = [*images.direct(**parameters), "--control", str(folder / "control"), *words]
    return Launched(folder, *flags, expect_exit=expect_exit)


def test_information_freeze_and_a_shutdown_that_is_waited_for(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images) as run:
        early = ask(tmp_path, "info")
        if early.returncode == 1 and "no daemon" not in early.stderr:
            assert "QEMU is" in early.stderr  # it names what is missing
        run.ready()
        told = ask(tmp_path, "info", "--json", "--timeout", "60")
        found = json.loads(told.stdout)
        assert (found["state"], found["information"]["http_port"]) == ("ready", 5000)
        # It has no network, and that is what is said of it.
        assert (told.returncode, found["problem"]) == (1, "the guest has asked, but has no address yet")
        assert int(found["uptime"]) >= 0
        assert ask(tmp_path, "freeze", "--timeout", "60").returncode == 0
        run.console.says("vchannel: request 14 fs_freeze")
        assert ask(tmp_path, "thaw").returncode == 0
        run.console.says("vchannel: request 15 fs_unfreeze")
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert gone.returncode == 0, gone.stderr
        assert "gone" in gone.stdout
        run.console.says("reboot: Power down")
        assert 'says it is "vhostcomm/' in run.event("stop asked for")["by"]
        assert "own power-off" in run.event("QEMU ended")["why"]
        assert run.ends() == 0
    run.console.kept_to_the_protocol()
    assert {each.name for each in tmp_path.iterdir()} == {"console"}


def test_a_reboot(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images) as run:
        run.ready()
        rebooted = ask(tmp_path, "reboot", "--timeout", "60")
        assert rebooted.returncode == 0, rebooted.stderr
        assert "inferred" in rebooted.stderr
        run.event("machine reset")
        run.ready()
        assert json.loads(ask(tmp_path, "guests", "--json").stdout)[0]["state"] == "ready"
    run.console.kept_to_the_protocol()


def test_over_http_alone(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images) as run:
        run.ready()
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(tmp_path / "control")), base_url="http://x", timeout=100
        ) as http:
            assert http.get("/healthz").json() == {"healthy": True, "guests": 1, "unwell": {}}
            done = http.post("/guests/vdsm/shutdown", json={"wait": 90})
        assert (done.status_code, done.json()["gone"]) == (200, True), done.text
        assert run.ends() == 0


def test_a_shutdown_that_the_guest_does_not_heed_is_carried_out_by_the_launcher(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "12", ignore_poweroff=1) as run:
        run.ready()
        early = ask(tmp_path, "shutdown", "--wait", "0.5")
        assert (early.returncode, "being stopped, now by the guest's own power-off" in early.stderr) == (1, True), early
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert (gone.returncode, "stopped, by QMP quit" in gone.stdout) == (0, True), gone
        assert run.event("stopping by", stage="QMP quit")["why"]
        assert run.ends() == 0


def test_a_shutdown_during_boot_does_not_wait_for_a_guest_that_is_not_ready(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "600", mode="silent") as run:
        run.event("QEMU runs")
        done = json.loads(ask(tmp_path, "shutdown", "--wait", "90", "--json").stdout)
        assert (done["answered"], done["gone"], done["exit_status"]) == (False, True, 0)
        assert run.ends() == 0


def test_a_shutdown_that_ends_in_a_kill_says_so(tmp_path: Path, images: Images) -> None:
    with launched(tmp_path, images, "--grace", "1", expect_exit=8) as run:
        run.ready()
        os.kill(run.qemu_pid, signal.SIGSTOP)
        gone = ask(tmp_path, "shutdown", "--wait", "90")
        assert (gone.returncode, "killed by us" in gone.stdout) == (1, True), gone
        assert run.ends() == 8
