"""A launched guest that is reset during a call, or that was restored: calls and its own power-off still work."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.control.controlled import client, post
from tests.e2e.launched import BOOT_TIMEOUT, Images, Launched, qmp_command
from tests.e2e.moved import machine, restore
from tests.serving import Serving, run_vhostcomm, until

IP, REBOOT, INFO, FREEZE, THAW = 2, 8, 10, 14, 15


def launched(folder: Path, images: Images, **parameters: object) -> Launched:
    """A launcher whose QEMU has a second QMP socket, `qmp`."""
    words = [*images.direct(**parameters), "--control", str(folder / "control"), "--grace", "600"]
    return Launched(folder, *words, "--", "-qmp", f"unix:{folder}/qmp,server=on,wait=off")


def test_a_reset_with_calls_outstanding(tmp_path: Path, images: Images) -> None:
    """The guest answers no call, and its next boot is owed a thaw."""
    with (
        launched(tmp_path, images, mode="never") as run,
        client(tmp_path / "control") as http,
        ThreadPoolExecutor(5) as pool,
    ):
        run.event("guest ready")
        run.console.says("vchannel: answer 15 host_model")  # the guest's last question
        # At once: harmful commands need a sign of life within 5 s, and the guest gives no other.
        commands = FREEZE, REBOOT, IP, INFO, THAW
        asked = [pool.submit(post, http, "/guests/vdsm/call", command=each, timeout=5) for each in commands]
        until(
            lambda: all(f"vchannel: request {each} " in run.console.text for each in commands),
            "all five requests",
            BOOT_TIMEOUT,
        )
        assert run.event("frozen")
        qmp_command(tmp_path / "qmp", "system_reset")
        assert {each.result()[0] for each in asked} <= {409, 504}, [each.result() for each in asked]
        run.event("machine reset")
        run.event("guest ready")
        assert http.get("/guests/vdsm").json()["thaw_owed"]
        run.console.says("vchannel: request 15 ")
        run.stop_at_once()


def test_a_shutdown_that_is_waited_for_across_a_reset(tmp_path: Path, images: Images) -> None:
    """The first boot answers but does not power off; the next boot is asked again, in the same stage."""
    with launched(tmp_path, images, ignore_poweroff=1) as run, ThreadPoolExecutor(1) as pool:
        run.ready()
        words = "shutdown", "--control", tmp_path / "control", "--wait", "80"
        stopped = pool.submit(run_vhostcomm, *words, timeout=BOOT_TIMEOUT)
        run.event("the guest powers itself off")
        qmp_command(tmp_path / "qmp", "system_reset")
        run.event("machine reset before the power-off, asking the guest again")
        run.event("the guest powers itself off")
        run.process.send_signal(signal.SIGTERM)
        assert "gone after" in stopped.result().stdout, stopped.result()
        assert run.ends() == 0
    stages = [line["stage"] for line in run.log if line["event"] == "stopping QEMU"]
    assert stages == ["the guest's own power-off, through the vchannel", "QMP quit"]


def test_a_restored_guest_that_asks_nothing(tmp_path: Path, images: Images) -> None:
    """The guest was never heard, but it is up, so the stop uses its own power-off."""
    saved, incoming = tmp_path / "saved", tmp_path / "incoming"
    with Serving("--sock", f"nas={tmp_path}/nas", "--control", tmp_path / "control") as daemon:
        daemon.timeout = BOOT_TIMEOUT
        with machine(tmp_path, images, tmp_path / "nas") as before:
            daemon.event("guest ready")
            before.console.says("vchannel: ready")
            before.monitor.save(saved)
            before.quit()
    with Launched(tmp_path, *images.direct(), "--grace", "600", "--", "-incoming", f"unix:{incoming}") as run:
        assert run.event("guest paused")["why"] == "QEMU waits for an incoming migration"
        restore(saved, incoming)
        run.event("guest resumed")
        run.process.send_signal(signal.SIGTERM)
        run.event("the guest powers itself off")
        assert run.ends() == 0
    assert "reboot: Power down" in run.console.text
