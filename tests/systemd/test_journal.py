"""The log on a stream to systemd's journal, which JOURNAL_STREAM names."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, fake_guest, run_vhostcomm, started
from vchannel import HostCommand

HOSTILE = b"\x1b[31mred\r\n<0>forged\0"


@contextmanager
def serving_into_a_journal(*words: str | Path) -> Iterator[IO[str]]:
    """A daemon whose standard streams systemd has connected, and the journal's end of them."""
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    with ours, theirs:
        found = os.fstat(theirs.fileno())
        environment = ENVIRONMENT | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        command = [*VHOSTCOMM, "serve", "--control", "none", *map(str, words)]
        with started(command, stdout=theirs.fileno(), stderr=theirs.fileno(), env=environment) as process:
            theirs.close()
            try:
                with ours.makefile(encoding="utf-8", newline="\n") as journal:
                    yield journal
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(TIMEOUT)


def read_until(journal: IO[str], what: str) -> list[str]:
    lines = []
    for line in journal:
        lines.append(line)
        if what in line:
            return lines
    raise AssertionError(f"no {what!r} in {lines}")


@pytest.mark.slow
def test_lines_have_priorities_and_no_times(tmp_path: Path) -> None:
    with serving_into_a_journal("--sock", tmp_path / "nas") as journal:
        lines = read_until(journal, "waiting for QEMU")
        with fake_guest(tmp_path / "nas") as guest, fake_guest(tmp_path / "nas") as second:
            assert second.at_end()
            guest.send(HostCommand.GUEST_POWER, HOSTILE, needs_response=False)
            assert guest.serial()
        lines += read_until(journal, "guest gone")
    assert all(re.match(r"<[3-7]>\[", line) for line in lines), lines
    text = "".join(lines)
    assert "\x1b" not in text
    assert not re.search(r"\d\d:\d\d:\d\d", text), "the journal adds the times"
    assert [line[:3] for line in lines if "connection refused" in line] == ["<4>"]
    assert [line[:3] for line in lines if "guest ready" in line] == ["<6>"]


@pytest.mark.slow
def test_json_lines_have_priorities(tmp_path: Path) -> None:
    with serving_into_a_journal("--sock", tmp_path / "nas", "--log-format", "json") as journal:
        (*_, line) = read_until(journal, "waiting for QEMU")
    assert line.startswith("<6>")
    assert json.loads(line[3:])["event"] == "waiting for QEMU"


@pytest.mark.slow
def test_each_line_of_an_error_has_its_priority(tmp_path: Path) -> None:
    with serving_into_a_journal("--config", tmp_path / "none") as journal:
        (line,) = journal.readlines()
    assert line.startswith("<3>vhostcomm: ")
    config = tmp_path / "c.toml"
    config.write_text("host = 1\nserve = 1\n")
    with serving_into_a_journal("--config", config) as journal:
        lines = journal.readlines()
    assert len(lines) > 1
    assert all(line.startswith("<3>") for line in lines)


def test_a_stream_that_is_not_the_journal_gets_no_priorities(tmp_path: Path) -> None:
    """Programs inherit the variable, even if a script pipes their output elsewhere."""
    for stream in ("1:2", "nonsense", ""):
        ended = run_vhostcomm("serve", "--config", tmp_path / "none", env=ENVIRONMENT | {"JOURNAL_STREAM": stream})
        assert ended.stderr.startswith("vhostcomm: ")
