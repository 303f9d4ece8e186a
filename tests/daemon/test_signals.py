"""SIGHUP and SIGINT that were ignored when a program started stay ignored; SIGTERM always ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from tests.qemu_host.running import QEMU_HOST, listens
from tests.serving import TIMEOUT, Serving, fake_guest, line_from, started, until


@pytest.mark.slow
def test_hangup_is_ignored_under_nohup(tmp_path: Path) -> None:
    daemon = Serving("--sock", f"nas={tmp_path}/nas")
    daemon.command = ["nohup", *daemon.command]
    with daemon:
        daemon.send_signal(signal.SIGHUP)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.event("stopping")["why"] == "SIGTERM"
    assert not [line for line in daemon.log if line["event"] == "reloading"]


@pytest.mark.parametrize("name", ["HUP", "INT"])
@pytest.mark.slow
def test_ignored_signal_changes_nothing(tmp_path: Path, name: str) -> None:
    with Serving("--sock", f"nas={tmp_path}/nas", shell=f"trap '' {name}") as daemon:
        daemon.send_signal(signal.Signals[f"SIG{name}"])
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
        assert daemon.stop() == 0
    assert [line["why"] for line in daemon.log if line["event"] in {"stopping", "reloading"}] == ["SIGTERM"]


@pytest.mark.slow
def test_sigterm_ends_a_daemon_that_was_started_with_it_ignored(tmp_path: Path) -> None:
    with Serving("--sock", f"nas={tmp_path}/nas", shell="trap '' TERM") as daemon:
        assert daemon.stop() == 0


def test_interrupt_of_a_script_leaves_its_background_qemu_host(tmp_path: Path) -> None:
    """Ctrl-C goes to a container's whole process group; background jobs of a non-interactive shell ignore it."""
    sock, api = tmp_path / "guest.sock", tmp_path / "api.sock"
    script = f"{QEMU_HOST} -addr=unix:{sock} -api {api} > {tmp_path}/trace & echo $!; wait"
    with started(["sh", "-c", script], stdout=subprocess.PIPE, bufsize=0, start_new_session=True) as shell:
        pid = int(line_from(shell))
        descriptor = os.pidfd_open(pid)
        try:
            until(lambda: listens(api), "its sockets")
            with fake_guest(sock) as guest:
                assert guest.serial()
                os.killpg(shell.pid, signal.SIGINT)
                assert shell.wait(TIMEOUT) == -signal.SIGINT, "the script is interrupted"
                assert _ignores(pid, signal.SIGINT)
                assert guest.serial()
        finally:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            assert poller.poll(TIMEOUT * 1000), "SIGTERM ends it"
            os.close(descriptor)


def _ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
