"""The launcher's messages to systemd, with a real QEMU whose machine has nothing to boot."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

import pytest

from tests.serving import VHOSTCOMM, LogReader, end
from tests.systemd.notified import NotifySocket, notify_socket

TIMEOUT: Final = 60.0
"""Seconds for QEMU, twice on a busy machine."""

MACHINE: Final = ["--accel", "tcg", "--net", "none", "--memory", "64M", "--serial-console", "none"]


class Launched(LogReader):
    """`vhostcomm run`, with a disk of zeros."""

    def __init__(self, folder: Path, manager: NotifySocket, *words: str) -> None:
        disk = folder / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        super().__init__([*VHOSTCOMM, "run", "--log-format", "json", "--boot", str(disk), *MACHINE, *words])
        self.timeout = TIMEOUT
        listening = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "WATCHDOG_USEC": "60000000"}
        self.process = subprocess.Popen(
            self.command, env=manager.environment | listening | {"RUNTIME_DIRECTORY": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stderr
        self.follow(self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
        self.finish()


@pytest.mark.slow
def test_a_launcher_reports_its_start_and_each_stage_of_its_stop(tmp_path: Path) -> None:
    with notify_socket() as manager, Launched(tmp_path, manager, "--grace", "10", "--name", "nas") as run:
        manager.sock.settimeout(TIMEOUT)
        assert manager.next() == "WATCHDOG=1"
        # In either order: QEMU may connect before it answers QMP.
        manager.hears_all("READY=1", "STATUS=nas: connected, not ready yet")
        assert (tmp_path / "control/nas.sock").is_socket()
        pid = run.event("QEMU runs")["pid"]
        inherited = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" in inherited
        assert not re.search(rb"NOTIFY_SOCKET|WATCHDOG_|LISTEN_", inherited)

        run.process.send_signal(signal.SIGTERM)
        assert manager.hears("STOPPING=1") == "STOPPING=1"
        assert manager.next().startswith("STATUS=stopping: SIGTERM; nas: ")
        # The wait for a guest that may boot, 6 s; the power button, 2 s, which is ignored. Then QMP quit, 1 s.
        assert manager.hears("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=26000000"
        assert manager.hears("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=22000000"
        manager.hears("stopping by the power button")
        assert manager.hears("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=21000000"
        assert run.process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_a_qemu_that_does_not_start_is_never_ready(tmp_path: Path) -> None:
    with notify_socket() as manager, Launched(tmp_path, manager, "--", "-device", "no-such-device") as run:
        assert run.process.wait(TIMEOUT) == 3
        messages = "\n".join(manager.rest())
        assert "READY=1" not in messages
        assert "STOPPING=1\nSTATUS=stopping: the guest is done; vdsm: no QEMU runs" in messages


@pytest.mark.slow
def test_recording_of_a_launcher_is_reopened(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    with notify_socket() as manager, Launched(tmp_path, manager, "--grace", "3", "--record", str(recording)) as run:
        run.event("QEMU runs")
        recording.rename(tmp_path / "renamed")
        run.process.send_signal(signal.SIGUSR1)
        run.event("recording started", file=str(recording))
        run.process.send_signal(signal.SIGTERM)
        assert run.event("stopping")["why"] == "SIGTERM"
        assert run.process.wait(TIMEOUT) == 0
    for each in recording, tmp_path / "renamed":
        assert each.read_text().count('"vchannel_capture"') == 1
