"""The only place that sees every frame: the frame log and the recording."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import frozen

from vchannel import (
    FRAME_SIZE,
    BytesSkipped,
    Event,
    FrameRefused,
    NeedData,
    Request,
    Response,
    Role,
    UnsolicitedResponse,
)
from vhostcomm import __version__
from vhostcomm.capture.format import CaptureHeader, Direction, FrameRecord, Origin, Record, format_header, format_record
from vhostcomm.capture.record import Recorder
from vhostcomm.capture.show import describe_frame
from vhostcomm.channel.file_errors import error_of, leads_to, remedy
from vhostcomm.channel.guest import Trace
from vhostcomm.errors import PlaceError, ServeError
from vhostcomm.log.logs import Log
from vhostcomm.log.sink import Sink, write_all

NUMBERS: Final = 1000
"""Maximum recordings with the same name; a daemon that restarts for ever must not fill a directory."""

RECORD_SIZE: Final = 512
"""Memory of a record besides its frame's data, in bytes: 364 were measured."""

FORMATTED_AT_ONCE: Final = 64
"""Records to format before writing them: at most 1 MB of text."""

FLUSH_TIMEOUT: Final = 2.0
"""Seconds that the end of a session waits until its recording is on disk."""


class Recording:
    """A capture that a thread writes. It ends at its limit or when the disk is full.

    The file is new and has mode 0600. If the file exists, it is left unchanged and the recording's name gets a number.

    Args:
        path: of the file.
        limit: maximum bytes of the file.
        guest: the guest's name, for the provenance.
        log: for the file's name, and one warning if the recording ends early or its file disappears.

    Raises:
        ServeError: the file can't be created, or the system refuses the thread. No file is left.
    """

    def __init__(self, path: Path, limit: int, guest: str, log: Log) -> None:
        self._wanted = path
        self._limit = limit
        self._guest = guest
        self._log = log
        self._recorder = Recorder(Role.HOST)
        self._start = time.monotonic()
        # The start of all its files: frames have times relative to it.
        header = CaptureHeader(
            datetime.now(UTC).replace(microsecond=0),
            f"vhostcomm {__version__}",
            Origin.RECORDED,
            f"Recorded by vhostcomm's daemon from the channel of {guest}.",
        )
        self._header = format_header(header).encode()
        self.ended = ""
        """Why it has ended early; empty if it has not."""
        self._fd, self.path = _new_file(path)
        try:
            self._sink = self._make_sink()
        except ServeError:
            os.close(self._fd)
            with suppress(OSError):
                self.path.unlink()
            raise
        self._begin()

    def _make_sink(self) -> Sink[Record | None]:
        return Sink(self._write, f"record {self._guest}", self._failed, size=_size)

    def _begin(self) -> None:
        self._lost = False
        self._room = self._limit - len(self._header)
        self._log.info("recording started", file=str(self.path))
        with suppress(OSError):  # the next write reports it
            write_all(self._fd, self._header)

    def flush(self, timeout: float) -> bool:
        """Wait until all records are written, for at most `timeout` seconds. Return False if some are not."""
        return self._sink.flush(timeout)

    def received(self, event: Event) -> None:
        """Record an event of the guest."""
        self._put(self._recorder.received(time.monotonic() - self._start, event))

    def sent(self, raw: bytes) -> None:
        """Record a frame sent to the guest."""
        self._put(self._recorder.sent(time.monotonic() - self._start, raw))

    def complete(self) -> None:
        """Write the recorder's delayed record, at the end of a connection or before `close`."""
        self._put(self._recorder.close())

    def _put(self, records: Iterable[Record]) -> None:
        for record in records:
            self._sink.put(record)

    def reopen(self) -> None:
        """Continue in a new file, unless the current one is still at its path. Never waits.

        A recording that ended, at its limit or on a full disk, begins again.
        """
        try:
            if self._sink.dead:
                self._sink = self._make_sink()
        except ServeError as error:
            self._log.error("recording not reopened", file=str(self._wanted), why=str(error))
        else:
            self._sink.put(None)

    def close(self) -> None:
        """Write what is queued, within a time limit."""
        if self._sink.close(FLUSH_TIMEOUT):
            os.close(self._fd)
        if self._sink.lost and not self._sink.dead:
            self._log.warning("recording has gaps", file=str(self.path), records_lost=self._sink.lost)

    def discard(self) -> None:
        """Close an empty recording and remove its file."""
        self.close()
        with suppress(OSError):
            self.path.unlink()

    def _write(self, items: list[Record | None]) -> None:
        """Write records; None among them means `reopen`."""
        if None not in items:
            self._look()
        while None in items:
            place = items.index(None)
            try:
                self._write_all([each for each in items[:place] if each])
            except OSError as error:
                self._failed(error)
            self._open_again()
            items = items[place + 1 :]
        self._write_all([each for each in items if each])

    def _look(self) -> None:
        """Log once that the file is no longer at its path."""
        if not self._lost and not leads_to(self.path, self._fd):
            self._lost = True
            self._log.warning(
                "recording renamed or deleted, still writing",
                file=str(self.path),
                remedy=f"kill -USR1 {os.getpid()} begins a new one",
            )

    def _open_again(self) -> None:
        if leads_to(self.path, self._fd):
            return
        try:
            made = _new_file(self._wanted)
        except ServeError as error:
            self._log.error("recording not reopened", file=str(self._wanted), why=str(error))
            return
        os.close(self._fd)
        self._fd, self.path = made
        self._begin()

    def _write_all(self, records: list[Record]) -> None:
        # Formatting in the sink's thread costs the event loop nearly nothing. A few at a time, because the text is up
        # to three times the size of a record.
        for first in range(0, len(records), FORMATTED_AT_ONCE):
            text = "".join(map(format_record, records[first : first + FORMATTED_AT_ONCE]))
            if len(text) > self._room:
                text = text[: text.rfind("\n", 0, self._room) + 1]
                write_all(self._fd, text.encode())
                raise _LimitReachedError
            self._room -= len(text)
            write_all(self._fd, text.encode())

    def _failed(self, error: OSError) -> None:
        why = "its limit is reached" if isinstance(error, _LimitReachedError) else error.strerror
        self.ended = str(why)
        self._log.warning("recording ended", file=str(self.path), why=why)


def _new_file(path: Path) -> tuple[int, Path]:
    """Create a file for a recording; return its descriptor and path.

    Raises:
        ServeError: it can't be created.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir may raise. A directory's name would get a number.
        raise PlaceError(f"{path}: the recording can't be made: it is a directory; give a file in it")
    for number in range(NUMBERS):
        free = path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            return os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), free
        except FileExistsError:
            continue
        except OSError as error:
            raise error_of(error)(
                f"{free}: the recording can't be made: {error.strerror}{remedy(free, error)}"
            ) from None
    raise ServeError(f"{path}: {NUMBERS} recordings already exist; move them away")


def _size(record: Record | None) -> int:
    if record is None:
        return 0
    if isinstance(record, FrameRecord):
        return RECORD_SIZE + len(record.frame.data) + len(record.frame.padding)
    return RECORD_SIZE + len(record.raw)


class _LimitReachedError(OSError):
    """The recording has reached its maximum size."""


@frozen
class Tap:
    """Observes every frame of one connection. Check `is_observed` first: mostly, nobody observes it.

    The guest's traces come and go.
    """

    log: Log | None
    recording: Recording | None
    traces: list[Trace]

    @property
    def is_observed(self) -> bool:
        return bool(self.traces or self.recording or self.log)

    def received(self, event: Event) -> None:
        if self.recording:
            self.recording.received(event)
        for trace in self.traces:
            trace.received(event)
        if self.log:
            match event:
                case Request() | Response() | UnsolicitedResponse():
                    self.log.debug("frame", what=describe_frame(event.raw, Direction.TO_HOST))
                case FrameRefused():
                    self.log.debug("frame refused", what=str(event))
                case BytesSkipped():
                    self.log.debug("bytes skipped", count=event.count, why=event.reason.value)
                case NeedData.NEED_DATA:
                    pass

    def sent(self, raw: bytes) -> None:
        """Observe one or several sent frames."""
        for place in range(0, len(raw), FRAME_SIZE):
            frame = raw[place : place + FRAME_SIZE]
            if self.recording:
                self.recording.sent(frame)
            for trace in self.traces:
                trace.sent(frame)
            if self.log:
                self.log.debug("frame", what=describe_frame(frame, Direction.TO_GUEST))

    def close(self) -> None:
        """Complete the recording at the end of the connection."""
        if self.recording:
            self.recording.complete()
