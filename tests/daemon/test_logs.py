"""The log: what an operator reads, and that it never gets in the way."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, PATIENCE, VHOSTCOMM, Serving, fake_guest, until
from vchannel import HostCommand, Request
from vhostcomm.logs import escape


def test_one_line_for_each_thing(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--guest-serial", "1234ABC567890") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            guest.tell(HostCommand.GUEST_POWER, needs_response=False)
            for _ in range(5):
                assert guest.serial() == "1234ABC567890"
        daemon.event("guest gone")
    events = [line["event"] for line in daemon.log if line.get("guest") == "nas"]
    assert events == [
        "waiting for QEMU",
        "guest connected",
        "guest ready",
        "guest started",
        "guest asked",
        "guest gone",
    ]
    (asked,) = [line for line in daemon.log if line["event"] == "guest asked"]
    assert (asked["command"], asked["answer"]) == ("5 GUEST_SERIAL", "1234ABC567890")
    assert list(asked)[:3] == ["timestamp", "level", "event"]


def test_every_frame_at_debug_level(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--log-level", "debug") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
            guest.sock.sendall(b"junk" * 16 + Request.of(HostCommand.GUEST_SERIAL).raw)
        daemon.event("guest gone")
    frames = [line["what"] for line in daemon.log if line["event"] == "frame"]
    assert [frame.split("  [")[0] for frame in frames][:2] == [
        "guest → asks 5 GUEST_SERIAL",
        "host  → answers 5 GUEST_SERIAL 0000000000000",
    ]
    assert [line["count"] for line in daemon.log if line["event"] == "bytes skipped"] == [64]


HOSTILE = '\x1b[31mred\r\n{"event":"forged"}\u202eover\x9b2J' + "x" * 3000


def test_what_a_guest_sends_cannot_forge_lines(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--log-level", "debug") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            guest.tell(HostCommand.GUEST_POWER, HOSTILE.encode() + b"\0", needs_response=False)
            assert guest.serial()
        daemon.event("guest gone")
    assert not [line for line in daemon.log if line["event"] == "forged"]
    text = "".join(daemon.raw)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert max(map(len, daemon.raw)) < 2000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", r"a\nb"),
        ("\x1b[0m", r"\x1b[0m"),
        ("\x85\u2028", r"\x85\u2028"),
        ("\u202e", r"\u202e"),
        ("grün", "grün"),
        ("x" * 500, "x" * 199 + "…"),
        ("\ud800", r"\ud800"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_people_get_colours_on_a_terminal_and_plain_text_elsewhere(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    for output, colour in ((follower, True), (None, False)):
        command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas")]
        command += [] if colour else ["--log-format", "console"]
        with subprocess.Popen(
            command, stdout=output or subprocess.PIPE, env=ENVIRONMENT | {"TERM": "xterm"}
        ) as process:
            until((tmp_path / "nas").exists, "the socket")
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            text = (os.read(leader, 65536) if colour else process.stdout.read()).decode()  # type: ignore[union-attr]
        assert "guest asked" in text
        assert "answer" in text
        assert ("\x1b[" in text) == colour
        if not colour:
            assert not text.startswith("{")
    os.close(leader)
    os.close(follower)


def test_a_log_that_nobody_reads_stalls_nobody(tmp_path: Path) -> None:
    """The pipe is full after 64 KiB; service goes on, and at the end the process ends."""
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas"), "--log-level", "debug", "--frame-rate", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        until((tmp_path / "nas").exists, "the socket")
        with fake_guest(tmp_path / "nas") as guest:
            for _ in range(8000):
                assert guest.serial()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_lost_lines_are_counted(tmp_path: Path) -> None:
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas"), "--log-level", "debug", "--frame-rate", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout
        until((tmp_path / "nas").exists, "the socket")
        with fake_guest(tmp_path / "nas") as guest:
            for _ in range(8000):
                assert guest.serial()
            # Somebody reads at last.
            seen = b""
            while b"log lines were lost" not in seen:
                assert guest.serial()
                seen = seen[-100:] + os.read(process.stdout.fileno(), 65536)
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.wait(PATIENCE) == 0


def test_a_closed_log_stalls_nobody(tmp_path: Path) -> None:
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout
        until((tmp_path / "nas").exists, "the socket")
        process.stdout.close()
        for _ in range(5):
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
