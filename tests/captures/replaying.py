"""Replay of a capture against a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import attrs

from vchannel import (
    NEED_DATA,
    BytesSkipped,
    Command,
    Connection,
    Event,
    GuestCommand,
    HostCommand,
    MisuseError,
    Request,
    Response,
    Role,
    SkipReason,
    UnsolicitedResponse,
)
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord
from vhostcomm.capture.record import Recorder

Answer = Callable[[Request], bytes | None]
"""Returns the data of the response to a request; None for no response."""


def replay(capture: Capture, connection: Connection, answer: Answer | None = None) -> Iterator[Record]:
    """Play the other end's side of a capture to a connection, and record what happens.

    The connection receives the other end's bytes unchanged, and repeats those of its own end unchanged. It repeats them
    through `Connection.send`, so that requests wait for their responses. Bytes that `send` rejects are repeated without
    it: a request whose id is already waiting, an invalid header, bytes outside a frame.

    No readable capture raises an error here. In each direction, the resulting bytes are those of the capture. If a
    `Recorder` made the capture, up to its connection's end, the records, their times and their order are the same too.
    Otherwise, the connection may find other frames in the bytes than the capture. `assumed` is never repeated.

    With `answer`, new answers replace the responses of the connection's own end.

    Args:
        capture: the capture to replay.
        connection: a new connection.
        answer: returns the answers instead of the capture's responses.
    """
    recorder = Recorder(connection.role)
    toward = Direction.TO_HOST if connection.role is Role.HOST else Direction.TO_GUEST
    tape = _Tape(connection, (record for record in capture.records if record.direction is toward))
    due = 0
    for record in capture.records:
        if record.direction is toward:
            due += len(record.raw)
        yield from _hear(tape, due, recorder, answer)
        if record.direction is not toward:
            yield from _say(record, connection, recorder, own_answers=answer is not None)
    tape.end()
    yield from _hear(tape, due, recorder, answer)
    yield from recorder.close()


class _Tape:
    """The other end's bytes, given to a connection only when its next events need them.

    A connection that is out of step reports bytes only after it has seen the bytes that follow. If the next event depends
    on later bytes of the capture, the connection therefore receives those earlier.
    """

    def __init__(self, connection: Connection, records: Iterable[Record]) -> None:
        self.connection = connection
        self._records = deque(records)
        self._silence: SkipReason | None = None
        self._times: deque[tuple[int, float]] = deque()  # the end of each record's bytes, and its time
        self._fed = 0
        self._reported = 0

    def end(self) -> None:
        """Note that the other end has sent everything. `events` then also yields the bytes that the connection still holds."""
        self._silence = SkipReason.CLOSED

    def events(self, due: int) -> Iterator[tuple[float, Event]]:
        """Yield the events of the first `due` bytes, each with its time in the capture."""
        while self._reported < due:
            event = self.connection.next_event()
            if event is not NEED_DATA:
                yield self._time(event), event
            elif not self._go_on():
                return

    def _go_on(self) -> bool:
        if self._silence is not None:
            self.connection.discard_partial(self._silence)
            self._silence = None
            return True
        if not self._records:
            return False
        record = self._records.popleft()
        self.connection.receive_data(record.raw)
        self._fed += len(record.raw)
        self._times.append((self._fed, record.time))
        if isinstance(record, SkippedRecord) and record.why is not SkipReason.OUT_OF_STEP:
            self._silence = record.why
        return True

    def _time(self, event: Event) -> float:
        """Return the time of the record in which an event's bytes end; for a refusal, in which the refused bytes begin."""
        size = 0
        if isinstance(event, BytesSkipped):
            size = event.count
        elif isinstance(event, Request | Response | UnsolicitedResponse):
            size = len(event.raw)
        self._reported += size
        while self._times[0][0] < self._reported + (size == 0):
            self._times.popleft()
        return self._times[0][1]


def _hear(tape: _Tape, due: int, recorder: Recorder, answer: Answer | None) -> Iterator[Record]:
    connection = tape.connection
    for time, event in tape.events(due):
        yield from recorder.received(time, event)
        if answer and isinstance(event, Request) and event.needs_response and (data := answer(event)) is not None:
            yield from recorder.sent(time, connection.send(event.reply(data)))


def _say(record: Record, connection: Connection, recorder: Recorder, *, own_answers: bool) -> Iterator[Record]:
    """Send what the connection's own end sent in the capture."""
    if not isinstance(record, FrameRecord) or record.refused:
        yield from recorder.close()
        yield attrs.evolve(record, assumed=()) if isinstance(record, FrameRecord) else record
        return
    event = _event(record, connection.role)
    if isinstance(event, Response) and own_answers:
        return
    if event is not None:
        with suppress(MisuseError):  # its id is already waiting: the real host had given up the first request
            connection.send(event)
    yield from recorder.sent(record.time, record.raw)


def _event(record: FrameRecord, role: Role) -> Request | Response | None:
    """Return the event for which a connection of that role sends exactly the record's bytes; None if there is none."""
    frame = record.frame
    asks = frame.is_request == 1
    if (frame.is_request, frame.is_response) not in {(1, 0), (0, 1)}:
        return None
    namespace = GuestCommand if asks == (role is Role.HOST) else HostCommand
    command: Command = next((member for member in namespace if member == frame.command), frame.command)
    if asks:
        return Request(command, frame.data, record.raw, frame.needs_response == 1)
    return Response(command, frame.data, record.raw)
