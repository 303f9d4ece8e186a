"""The log: what an operator reads, and that it never delays a guest."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, Serving, fake_guest, is_listening, started, until
from vchannel import HostCommand, Request
from vhostcomm.log.logs import start_log
from vhostcomm.text import escape


def test_each_event_is_logged_once(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--guest-serial", "1234ABC567890") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
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


def test_every_frame_is_logged_at_debug_level(tmp_path: Path) -> None:
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


def test_guest_text_cannot_forge_lines(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--log-level", "debug") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            guest.send(HostCommand.GUEST_POWER, HOSTILE.encode() + b"\0", needs_response=False)
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


@pytest.mark.slow
def test_people_get_colours_on_a_terminal_and_plain_text_elsewhere(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    for output, colour in ((follower, True), (None, False)):
        command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas")]
        command += [] if colour else ["--log-format", "console"]
        with started(command, stdout=output or subprocess.PIPE, env=ENVIRONMENT | {"TERM": "xterm"}) as process:
            until(lambda: is_listening(tmp_path / "nas"), "the socket")
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            text = (os.read(leader, 65536) if colour else process.stdout.read()).decode()  # type: ignore[union-attr]
        assert "guest asked" in text
        assert "answer" in text
        assert ("\x1b[" in text) == colour
        if not colour:
            assert not text.startswith("{")
    os.close(leader)
    os.close(follower)


@pytest.mark.slow
def test_an_unread_log_stalls_no_guest(tmp_path: Path) -> None:
    """The pipe is full after 64 KiB. The daemon keeps serving, and ends when it is stopped."""
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas"), "--log-level", "debug", "--frame-rate", "0"]
    with started(command, stdout=subprocess.PIPE) as process:
        until(lambda: is_listening(tmp_path / "nas"), "the socket")
        with fake_guest(tmp_path / "nas") as guest:
            for _ in range(8000):
                assert guest.serial()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@pytest.mark.slow
def test_lost_lines_are_counted(tmp_path: Path) -> None:
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas"), "--log-level", "debug", "--frame-rate", "0"]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        until(lambda: is_listening(tmp_path / "nas"), "the socket")
        with fake_guest(tmp_path / "nas") as guest:
            for _ in range(8000):
                assert guest.serial()
            # Now the test reads.
            seen = b""
            while b"log lines were lost" not in seen:
                assert guest.serial()
                seen = seen[-100:] + os.read(process.stdout.fileno(), 65536)
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("form", ["json", "console"])
def test_lost_lines_are_reported_in_the_logs_format(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr("vhostcomm.log.sink.QUEUE_BYTES", 5000)
    reading, writing = os.pipe()
    seen: list[bytes] = []
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as pipe:
        log, sink = start_log("error", form, stream)
        for _ in range(500):
            log.error("x" * 190, more="y" * 190)
        reader = threading.Thread(target=lambda: seen.append(pipe.read()))
        reader.start()
        assert sink.close(TIMEOUT)
        stream.close()
        reader.join()
    assert sink.lost > 0
    lines = seen[0].decode().splitlines()
    losses = [line for line in lines if "log lines were lost" in line]
    assert len(lines) == 500 - sink.lost + len(losses)
    if form == "json":
        facts = [json.loads(line) for line in lines]
        assert all(list(each)[:3] == ["timestamp", "level", "event"] for each in facts)
        lost = [each for each in facts if each["event"] == "log lines were lost"]
        assert {each["level"] for each in lost} == {"warning"}
        assert sum(each["lost"] for each in lost) == sink.lost
    else:
        assert all("[warning" in line for line in losses)
        assert sum(int(line.rpartition("lost=")[2]) for line in losses) == sink.lost


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_end_of_an_exception_is_logged(tmp_path: Path, form: str) -> None:
    def deeper(depth: int) -> None:
        if depth:
            deeper(depth - 1)
        raise ValueError("begin" + "\x1b[31m" + "x" * 10_000 + "the end")

    with (tmp_path / "log").open("w") as stream:
        log, sink = start_log("info", form, stream)
        try:
            deeper(3)
        except ValueError:
            log.exception("internal error", other="z" * 500)
        assert sink.close(TIMEOUT)
    text = (tmp_path / "log").read_text()
    assert "the end" in text
    assert "\x1b" not in text
    assert "z" * 199 in text
    assert "z" * 200 not in text
    assert 8000 < len(text) < 9000
    with (tmp_path / "log").open("w") as stream:
        log, sink = start_log("info", form, stream)
        try:
            int("no number")
        except ValueError:
            log.exception("internal error")
        assert sink.close(TIMEOUT)
    text = (tmp_path / "log").read_text()
    trace = json.loads(text)["exception"] if form == "json" else text
    assert "Traceback (most recent call last):\n  File" in trace
    assert "ValueError: invalid literal for int() with base 10: 'no number'" in trace


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_log_closed_at_the_start_writes_into_no_socket(tmp_path: Path, closed: str) -> None:
    """No socket of a guest may get the descriptor of the log, or the guest would receive log lines."""
    words = f'exec "{sys.executable}" -m vhostcomm serve --sock "{tmp_path}/nas" {closed}'
    with started(["sh", "-c", words], stderr=subprocess.PIPE) as process:
        until(lambda: is_listening(tmp_path / "nas"), "the socket")
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
            opened = [str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in range(3)]
            assert not [each for each in opened if each.startswith("socket")]
            assert opened[1] == os.devnull
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert process.stderr
        assert process.stderr.read() == b""


def test_a_log_without_a_stream_discards_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    log, sink = start_log("info", "auto")
    log.info("nowhere")
    assert sink.close(TIMEOUT)
    assert sink.lost == 0


@pytest.mark.slow
def test_a_closed_log_stalls_no_guest(tmp_path: Path) -> None:
    command = [*VHOSTCOMM, "serve", "--sock", str(tmp_path / "nas")]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        until(lambda: is_listening(tmp_path / "nas"), "the socket")
        process.stdout.close()
        for _ in range(5):
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
