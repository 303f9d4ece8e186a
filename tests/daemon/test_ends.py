"""How the daemon ends, and what it still answers."""

from __future__ import annotations

import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon.test_serve import SERIAL, ZERO
from tests.serving import ENVIRONMENT, Serving, fake_guest, run_vhostcomm, until
from vchannel import FRAME_SIZE, Request


def test_answers_that_a_guest_reads_late_are_not_lost_at_the_end(tmp_path: Path) -> None:
    """The guest has asked more than its socket holds, and begins to read only when the daemon stops."""
    words = ["--sock", str(tmp_path / "nas"), "--frame-rate", "0"]
    with Serving(*words) as daemon, fake_guest(tmp_path / "nas") as guest:
        room = _room()
        asked = [Request.of(SERIAL) for _ in range(room // FRAME_SIZE + 16)]
        guest.sock.sendall(b"".join(map(guest.connection.send, asked)))
        until(lambda: guest.waiting() > room - FRAME_SIZE, "the daemon is stuck: its answers fill the socket")
        daemon.send_signal(signal.SIGTERM)
        daemon.event("stopping")
        assert [guest.answer(each) for each in asked] == [ZERO.encode() + b"\0"] * len(asked)


def _room() -> int:
    """Bytes that a unix socket accepts while its peer does not read."""
    writing, reading = socket.socketpair()
    with writing, reading, suppress(BlockingIOError):
        writing.setblocking(False)
        taken = 0
        while True:
            taken += writing.send(bytes(FRAME_SIZE))
    return taken


@pytest.mark.slow
def test_exit_status_is_0_after_any_number_of_signals(tmp_path: Path) -> None:
    """Signals come until the process has ended, also while Python itself exits."""
    for _ in range(3):
        with Serving("--sock", tmp_path / "nas", fresh=True) as daemon:
            while daemon.process.poll() is None:
                daemon.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    daemon.process.wait(0.002)
            assert daemon.process.returncode == 0


@pytest.mark.slow
def test_nothing_is_left_to_finalizers(tmp_path: Path) -> None:
    """Python in its development mode warns of files, sockets and coroutines that are still open at its end."""
    developing = ENVIRONMENT | {"PYTHONDEVMODE": "1"}
    control = tmp_path / "control"
    with (
        Serving("--sock", tmp_path / "nas", "--control", control, env=developing) as daemon,
        fake_guest(tmp_path / "nas") as guest,
    ):
        assert guest.serial() == ZERO
        asked = run_vhostcomm("guests", "--control", control, env=developing)
        assert (asked.returncode, asked.stderr) == (0, "")
    assert daemon.errors() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_daemon_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with Serving("--sock", tmp_path / "guest") as daemon, fake_guest(tmp_path / "guest") as guest:
        assert guest.serial() == ZERO
        asked = guest.send(SERIAL)
        assert daemon.stop(number) == 0
        assert guest.answer(asked) == ZERO.encode() + b"\0", "the last question is answered"
        assert guest.at_end()
    assert not any(tmp_path.iterdir())
    assert daemon.errors() == ""


def test_a_guest_that_never_reads_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with (
        Serving("--sock", tmp_path / "guest", "--drain-timeout", "0.3", "--frame-rate", "0") as daemon,
        fake_guest(tmp_path / "guest") as guest,
    ):
        guest.sock.setblocking(False)
        asked = Request.of(SERIAL).raw
        with suppress(BlockingIOError):
            while guest.sock.send(asked):
                pass
        assert daemon.stop() == 0
    assert not any(tmp_path.iterdir())
