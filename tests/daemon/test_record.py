"""Recording: exact, private, bounded, and never in the way."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from tests.captures.make_golden import FOLDER
from tests.docs.pages import ROOT
from tests.serving import TIMEOUT, Serving, fake_guest, run_vhostcomm
from tests.trio_help import run_in_real_time
from vchannel import HostCommand, Request
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Origin, Record
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.channel import recordings
from vhostcomm.channel.frame_tap import Recording
from vhostcomm.channel.guest import Guest
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.errors import ServeError


def read(path: Path) -> Capture:
    with path.open() as lines:
        return read_capture(lines, str(path))


@pytest.mark.parametrize("name", ["every-command", "damage"])
@pytest.mark.slow
def test_a_replayed_capture_is_recorded_as_it_was(tmp_path: Path, name: str) -> None:
    recording = tmp_path / "out.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", recording) as daemon:
        assert run_vhostcomm("capture", "replay", FOLDER / f"{name}.jsonl", "--sock", tmp_path / "nas").returncode == 0
        daemon.event("guest gone")
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    recorded, golden = read(recording), read(FOLDER / f"{name}.jsonl")
    # The replay leaves a guest's answers out: the daemon has asked nothing.
    played = [each for each in golden.records if not (each.direction is Direction.TO_HOST and _is_answer(each))]
    golden = Capture(golden.header, tuple(played))
    assert recorded.header.origin is Origin.RECORDED
    assert "nas" in recorded.header.provenance
    assert not recorded.header.redacted
    for way in Direction:
        sent = [
            b"".join(record.raw for record in each.records if record.direction is way) for each in (recorded, golden)
        ]
        assert sent[0] == sent[1], way
    assert [str(each) for each in compare(recorded, golden, request_ids=True)] == []


def _is_answer(record: Record) -> bool:
    return isinstance(record, FrameRecord) and not record.refused and record.frame.is_response == 1


def test_one_file_for_each_guest(tmp_path: Path) -> None:
    words = ["--record", str(tmp_path / "{guest}.jsonl"), "--sock", str(tmp_path / "a"), "--sock", str(tmp_path / "b")]
    with Serving(*words):
        for name in "ab":
            with fake_guest(tmp_path / name) as guest:
                assert guest.serial()
    assert len(read(tmp_path / "a.jsonl").records) == len(read(tmp_path / "b.jsonl").records) == 2


def test_several_connections_are_one_recording(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", recording) as daemon:
        for _ in range(3):
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
                guest.sock.sendall(b"half")
            daemon.event("guest gone")
    records = read(recording).records
    assert len(records) == 9
    assert [record.raw for record in records[2::3]] == [b"half"] * 3
    assert [record.time for record in records] == sorted(record.time for record in records)


def test_the_limit_ends_a_recording_with_one_warning(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    words = ["--sock", str(tmp_path / "nas"), "--record", str(recording), "--record-limit", "4k"]
    with Serving(*words) as daemon, fake_guest(tmp_path / "nas") as guest:
        for _ in range(50):
            assert guest.serial()
        assert daemon.event("recording ended")["why"] == "its limit is reached"
        assert guest.serial()
    assert 3000 < recording.stat().st_size <= 4096
    assert read(recording).cut_off == ""
    assert len([line for line in daemon.log if line["event"] == "recording ended"]) == 1


@pytest.mark.slow
def test_a_full_disk_ends_a_recording_with_one_warning(tmp_path: Path) -> None:
    """A limit on the size of files replaces the full disk here: it makes writes fail in the same way."""
    recording = tmp_path / "out.jsonl"
    words = ["--sock", str(tmp_path / "nas"), "--record", str(recording)]
    with Serving(*words, shell="ulimit -f 8") as daemon, fake_guest(tmp_path / "nas") as guest:
        for _ in range(100):
            assert guest.serial()
        assert daemon.event("recording ended")["why"] == "File too large"
        assert guest.serial()
    assert len(read(recording).records) > 5


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """A daemon that is started again records again, beside its last recording."""
    recording = tmp_path / "out.jsonl"
    recording.write_text("precious")
    for number in (1, 2):
        with Serving("--sock", tmp_path / "nas", "--record", recording) as daemon:
            assert daemon.log[0]["event"] == "recording started"
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
        assert len(read(tmp_path / f"out-{number}.jsonl").records) == 2
    assert recording.read_text() == "precious"


def test_an_empty_recording_is_a_capture(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", recording):
        assert read(recording).records == ()


def test_serve_fails_if_a_recording_cannot_be_made(tmp_path: Path) -> None:
    ended = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--record", tmp_path / "no" / "out.jsonl")
    assert ended.returncode == 78
    assert "the recording can't be made: No such file or directory; make its directory: install -d " in ended.stderr
    assert f" {tmp_path}/no\n" in ended.stderr
    assert not any(tmp_path.iterdir())
    ended = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--record", tmp_path / ("x" * 256))
    assert (ended.returncode, ended.stderr.count("x: the recording can't be made: File name too long\n")) == (1, 1)


def test_a_directory_is_not_a_recording(tmp_path: Path) -> None:
    ended = run_vhostcomm("serve", "--sock", tmp_path / "nas", "--record", tmp_path)
    assert (ended.returncode, list(tmp_path.parent.glob(f"{tmp_path.name}-*"))) == (78, [])
    assert f"{tmp_path}: the recording can't be made: it is a directory; give a file in it\n" in ended.stderr


@pytest.mark.slow
def test_recording_loses_neither_frames_nor_answers(tmp_path: Path) -> None:
    with (
        Serving("--sock", tmp_path / "nas", "--record", tmp_path / "out.jsonl", "--frame-rate", "0"),
        fake_guest(tmp_path / "nas") as guest,
    ):
        for _ in range(200):
            asked = [Request.of(HostCommand.GUEST_SERIAL) for _ in range(16)]
            guest.sock.sendall(b"".join(map(guest.connection.send, asked)))
            assert all(guest.answer(each) for each in asked)
    assert len(read(tmp_path / "out.jsonl").records) == 200 * 32


@pytest.mark.parametrize(
    "lose", [lambda path: path.rename(path.with_suffix(".1")), Path.unlink], ids=["rename", "delete"]
)
def test_lost_file_is_logged_once_and_reopened(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    recording = tmp_path / "out.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", recording) as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()
        lose(recording)
        for _ in range(2):
            assert guest.serial()
            assert guest.serial()
        line = daemon.event("recording renamed or deleted, still writing")
        assert line["file"] == str(recording)
        assert line["remedy"] == f"kill -USR1 {daemon.process.pid} begins a new one"
        daemon.send_signal(signal.SIGUSR1)
        daemon.event("recording started", file=str(recording))
        assert guest.serial()
    assert [line["file"] for line in daemon.log if line["event"].startswith("recording")] == [str(recording)] * 3
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    assert len(read(recording).records) == 2
    if (renamed := recording.with_suffix(".1")).exists():
        assert len(read(renamed).records) == 10
        assert read(renamed).header == read(recording).header  # times count from the same moment
        assert read(renamed).records[-1].time <= read(recording).records[0].time


def test_recording_still_at_its_path_is_continued(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", recording) as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()
        daemon.send_signal(signal.SIGUSR1)
        daemon.event("reopening recordings")
        assert guest.serial()
    assert len(read(recording).records) == 4
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["out.jsonl"]


def test_ended_recording_begins_again(tmp_path: Path) -> None:
    recording = tmp_path / "out.jsonl"
    words = ["--sock", str(tmp_path / "nas"), "--record", str(recording), "--record-limit", "4k"]
    with Serving(*words) as daemon, fake_guest(tmp_path / "nas") as guest:
        for _ in range(50):
            assert guest.serial()
        daemon.event("recording ended")
        recording.rename(tmp_path / "full")
        daemon.send_signal(signal.SIGUSR1)
        daemon.event("recording started", file=str(recording))
        assert guest.serial()
    assert len(read(recording).records) == 2


def test_recording_that_cannot_be_reopened_is_continued(tmp_path: Path) -> None:
    (folder := tmp_path / "folder").mkdir()
    with (
        Serving("--sock", tmp_path / "nas", "--record", folder / "out.jsonl") as daemon,
        fake_guest(tmp_path / "nas") as guest,
    ):
        folder.rename(tmp_path / "moved")
        daemon.send_signal(signal.SIGUSR1)
        assert "make its directory: install -d" in daemon.event("recording not reopened")["why"]
        assert guest.serial()
    assert len(read(tmp_path / "moved/out.jsonl").records) == 2


@pytest.mark.needs("logrotate")
def test_logrotate_with_the_example_of_the_docs(tmp_path: Path) -> None:
    page = (ROOT / "docs/systemd.md").read_text()
    example = page[page.index("/var/log/vhostcomm/*.jsonl {") :].partition("```")[0]
    command = "systemctl kill --signal=SIGUSR1 --kill-whom=main vhostcomm.service"
    assert command in example
    (folder := tmp_path / "log").mkdir(mode=0o700)
    with (
        Serving("--sock", tmp_path / "nas", "--record", folder / "{guest}.jsonl") as daemon,
        fake_guest(tmp_path / "nas") as guest,
    ):
        assert guest.serial()
        rules = example.replace("/var/log/vhostcomm", str(folder)).replace(command, f"kill -USR1 {daemon.process.pid}")
        (tmp_path / "rules").write_text(rules)
        rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
        rotated = subprocess.run(rotate, capture_output=True, text=True, check=False)
        assert (rotated.returncode, rotated.stdout, rotated.stderr) == (0, "", "")
        daemon.event("recording started", file=str(folder / "nas.jsonl"))
        assert guest.serial()
    assert [len(read(folder / name).records) for name in ("nas.jsonl.1", "nas.jsonl")] == [2, 2]


def test_a_recording_without_a_thread_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(ServeError, match="record nas: "):
        Recording(tmp_path / "nas.jsonl", 1000, "nas", structlog.get_logger())
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert not any(tmp_path.iterdir())


def test_a_recording_whose_client_leaves_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow disk, the file is made after the client has left."""
    begun, go, discarded = (threading.Event() for _ in range(3))
    made: list[Recording] = []

    class Slow(Recording):
        def __init__(self, *words: Any) -> None:
            begun.set()
            go.wait(TIMEOUT)
            super().__init__(*words)
            made.append(self)

        def discard(self) -> None:
            super().discard()
            discarded.set()

    monkeypatch.setenv("LOGS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(recordings, "Recording", Slow)

    async def main() -> None:
        guest = Guest("nas", Listen(tmp_path / "nas"), HostIdentity(), GuestIdentity(), structlog.get_logger())
        started = recordings.Recordings(structlog.get_logger(), lambda _: True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started.start, guest, "a client")
            assert await trio.to_thread.run_sync(begun.wait, TIMEOUT)
            nursery.cancel_scope.cancel()
        assert started.of(guest) is None
        assert not guest.traces
        go.set()
        assert await trio.to_thread.run_sync(discarded.wait, TIMEOUT)
        assert not made[0].path.exists()
        again = await started.start(guest, "another client")
        assert again.active
        await started.close()
        assert read(again.recording.path).records == ()

    run_in_real_time(main)


def test_a_capture_is_redacted_while_guests_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter switch interval leaves the event loop its turns."""
    intervals: list[float] = []

    def observed(capture: Capture) -> Capture:
        intervals.append(sys.getswitchinterval())
        return redact(capture)

    monkeypatch.setenv("LOGS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(recordings, "redact", observed)

    async def main() -> None:
        guest = Guest("nas", Listen(tmp_path / "nas"), HostIdentity(), GuestIdentity(), structlog.get_logger())
        started = recordings.Recordings(structlog.get_logger(), lambda _: True)
        await started.start(guest, "a client")
        assert await started.text(guest, redacted=True)
        await started.close()

    before = sys.getswitchinterval()
    run_in_real_time(main)
    (meanwhile,) = intervals
    assert meanwhile < before
    assert sys.getswitchinterval() == before
