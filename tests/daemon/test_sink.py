"""Where log lines go: a disk that is full, a stream that breaks, a flush that is waited for."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import deque
from pathlib import Path

import pytest

from tests.serving import TIMEOUT
from vhostcomm.log.logs import start_log
from vhostcomm.log.sink import QUEUE_BYTES, Sink


class _Writes:
    """A substitute for `os.write` that fails while `error` is set."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.error: int | None = None
        self.room = 0
        self.calls = 0
        self._write = os.write

    def __call__(self, fd: int, data: bytearray) -> int:
        if fd != self.fd or self.error is None:
            return self._write(fd, data)
        self.calls += 1
        if not self.room:
            raise OSError(self.error, os.strerror(self.error))
        part, self.room = data[: self.room], 0
        return self._write(fd, part)


@pytest.mark.parametrize("room", [0, 30])
def test_a_full_disk_loses_lines_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """The rest of a partly written line follows when there is room."""
    with (tmp_path / "log").open("w") as stream:
        writes = _Writes(stream.fileno())
        monkeypatch.setattr("os.write", writes)
        log, sink = start_log("info", "json", stream)
        log.info("before")
        assert sink.flush(TIMEOUT)
        writes.error, writes.room = errno.ENOSPC, room
        for place in range(3):
            log.info("lost", place=place)
            assert sink.flush(TIMEOUT)
        writes.error = None
        log.info("after")
        assert sink.close(TIMEOUT)
    assert not sink.dead
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    torn = ["lost"] if room else []
    assert [line["event"] for line in lines] == ["before", *torn, "after", "log lines were lost"]
    assert lines[-1]["lost"] == 3


@pytest.mark.parametrize(
    ("number", "terminal", "ends"),
    [
        (errno.EPIPE, False, True),
        (errno.EBADF, False, True),
        (errno.EIO, True, True),
        (errno.EIO, False, False),
        (errno.EDQUOT, False, False),
        (errno.ENOSPC, True, False),
    ],
)
def test_a_log_ends_with_its_reader_or_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, terminal: bool, ends: bool
) -> None:
    with (tmp_path / "log").open("w") as stream:
        writes = _Writes(stream.fileno())
        monkeypatch.setattr("os.write", writes)
        monkeypatch.setattr("os.isatty", lambda _: terminal)
        log, sink = start_log("info", "json", stream)
        writes.error = number
        for _ in range(3):
            log.info("lost")
            assert sink.flush(TIMEOUT)
        assert sink.dead == ends
        assert sink.lost == 3
        assert writes.calls == (1 if ends else 3)
        assert sink.close(TIMEOUT)


def test_a_sink_survives_an_internal_error(capfd: pytest.CaptureFixture[str]) -> None:
    written: list[int] = []

    def write(items: list[int]) -> None:
        if 0 in items:
            raise ValueError("a mistake")
        written.extend(items)

    sink: Sink[int] = Sink(write, "test", lambda _: None)
    for item in (1, 0, 2, 0, 3):
        sink.put(item)
        assert sink.flush(TIMEOUT)
    assert sink.close(TIMEOUT)
    assert written == [1, 2, 3]
    assert (sink.lost, sink.dead) == (2, False)
    assert capfd.readouterr().err.count("ValueError: a mistake") == 1
    sink.put(4)
    assert sink.lost == 3, "the sink has ended"


def test_a_sink_ends_with_an_error_by_default() -> None:
    errors: list[OSError] = []
    broken = OSError(errno.EIO, "broken")

    def write(items: list[int]) -> None:
        raise broken

    sink: Sink[int] = Sink(write, "test", errors.append)
    sink.put(1)
    assert sink.close(TIMEOUT)
    assert errors == [broken]
    assert sink.dead
    sink.put(2)
    assert sink.lost == 2


def test_flush_waits_for_all_that_was_put() -> None:
    go = threading.Event()
    written: list[int] = []

    def write(items: list[int]) -> None:
        assert go.wait(TIMEOUT)
        written.extend(items)

    sink: Sink[int] = Sink(write, "test", lambda _: None)
    sink.put(-1)
    assert not sink.flush(0.05)
    go.set()
    for item in range(2000):
        sink.put(item)
        assert sink.flush(TIMEOUT)
        assert written[-1] == item
    assert sink.close(TIMEOUT)


def test_flush_waits_for_lines_put_while_the_last_write_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = [threading.Event(), threading.Event()]
    begun, written = threading.Event(), threading.Event()
    writers: list[int] = []
    found_free: list[bool] = []

    class SlowQueue(deque[int]):
        def append(self, item: int) -> None:
            if item == 1:
                gates[0].set()
                assert written.wait(TIMEOUT)
            super().append(item)

    class Watched(threading.Condition):
        def __enter__(self) -> bool:
            """Note whether the thread, after its first write, could find the queue empty."""
            if threading.get_ident() in writers and not written.is_set():
                found_free.append(self.acquire(blocking=False))
                if found_free[-1]:
                    self.release()
                written.set()
            return super().__enter__()

    def write(items: list[int]) -> None:
        begun.set()
        assert gates[items[0]].wait(TIMEOUT)
        writers.append(threading.get_ident())

    monkeypatch.setattr("vhostcomm.log.sink.deque", SlowQueue)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Condition", Watched)
        sink: Sink[int] = Sink(write, "test", lambda _: None)
    sink.put(0)
    assert begun.wait(TIMEOUT)
    sink.put(1)
    assert found_free == [False]
    assert not sink.flush(0.05)
    gates[1].set()
    assert sink.flush(TIMEOUT)
    assert sink.close(TIMEOUT)


def test_a_queue_is_limited_in_bytes() -> None:
    """Items of any size count, and so do items of a write that hangs. Lost items are reported."""
    begun, go = threading.Event(), threading.Event()
    written: list[str] = []
    losses: list[int] = []

    def write(items: list[str]) -> None:
        begun.set()
        assert go.wait(TIMEOUT)
        written.extend(items)
        losses.append(sink.lost)

    sink: Sink[str] = Sink(write, "test", lambda _: None)
    sink.put("first" + "x" * (QUEUE_BYTES // 2))
    assert begun.wait(TIMEOUT)
    for number in range(1000):
        sink.put(str(number) + "x" * (QUEUE_BYTES // 10))
    assert sink.lost == 996
    go.set()
    assert sink.flush(TIMEOUT)
    assert losses[-1] == 996
    sink.put("room again" + "x" * (QUEUE_BYTES // 2))
    assert sink.close(TIMEOUT)
    assert [each.partition("x")[0] for each in written] == ["first", "0", "1", "2", "3", "room again"]
