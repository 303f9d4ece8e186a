"""A capture played against a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vchannel import (
    NEED_DATA,
    Connection,
    GuestCommand,
    HostCommand,
    Request,
    Response,
    Role,
    SkipReason,
)
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord
from vhostcomm.capture.record import Recorder

Answer = Callable[[Request], bytes | None]
"""The data to answer a request with; None for no response."""


def replay(capture: Capture, connection: Connection, answer: Answer | None = None) -> Iterator[Record]:
    """Play the other end's side of a capture to a connection, and record what happens.

    Bytes toward the connection's end are received by it as they stand. What its own end says is
    said again through `Connection.send`: its requests with their ids, and its responses with the
    capture's data, or with that of `answer`. Where the connection does all as the capture says,
    the records are the capture's own, byte for byte.

    Args:
        capture: which to play.
        connection: a new one.
        answer: what to answer instead of what the capture's responses say.
    """
    recorder = Recorder(connection.role)
    toward = Direction.TO_HOST if connection.role is Role.HOST else Direction.TO_GUEST
    asked: dict[tuple[int, int], Request] = {}
    for record in capture.records:
        if record.direction is not toward:
            if (raw := _say(record, connection, asked, answer)) is not None:
                yield from recorder.sent(record.time, raw)
            continue
        connection.receive_data(record.raw)
        for request, each in _received(connection, recorder, record.time):
            yield from each
            if request is None:
                continue
            asked[request.request_id, request.command] = request
            if answer and request.needs_response and (data := answer(request)) is not None:
                yield from recorder.sent(record.time, connection.send(request.reply(data)))
        if isinstance(record, SkippedRecord) and record.why is not SkipReason.OUT_OF_STEP:
            connection.discard_partial(record.why)
            for _, each in _received(connection, recorder, record.time):
                yield from each
    yield from recorder.close()


def _received(
    connection: Connection, recorder: Recorder, time: float
) -> Iterator[tuple[Request | None, Iterator[Record]]]:
    while (event := connection.next_event()) is not NEED_DATA:
        yield (event if isinstance(event, Request) else None), recorder.received(time, event)


def _say(
    record: Record, connection: Connection, asked: dict[tuple[int, int], Request], answer: Answer | None
) -> bytes | None:
    """What the connection's own end says where the capture says `record`."""
    if not isinstance(record, FrameRecord):
        return None
    frame = record.frame
    if frame.is_request:
        namespace = GuestCommand if connection.role is Role.HOST else HostCommand
        command = next((member for member in namespace if member == frame.command), frame.command)
        return connection.send(
            Request.of(
                command,
                frame.data,
                needs_response=frame.needs_response == 1,
                guest_id=frame.guest_id,
                guest_uuid=frame.guest_uuid,
                request_id=frame.request_id,
            )
        )
    request = asked.pop((frame.request_id, frame.command), None)
    if answer or request is None:
        return None
    response: Response = request.reply(frame.data)
    return connection.send(response)
