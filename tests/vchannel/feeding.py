"""Ways to split the same bytes into reads. The events must not depend on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from vchannel import (
    FRAME_SIZE,
    NEED_DATA,
    BytesSkipped,
    Connection,
    Event,
    FrameRefused,
    HostCommand,
    NeedData,
    PayloadError,
    Request,
    Response,
    Role,
    UnsolicitedResponse,
)

Feed = Callable[[Connection, bytes], list[Event]]

BEGINNING: Final = Request.of(HostCommand.GUEST_CPU, request_id=7).raw[:100]
"""The start of the next frame."""


def drain(connection: Connection) -> list[Event]:
    """Return all events. Afterwards, the connection holds only an unfinished frame."""
    events: list[Event] = []
    while (event := connection.next_event()) is not NEED_DATA:
        events.append(event)
    assert connection.held < FRAME_SIZE
    return events


def in_pieces(connection: Connection, pieces: Iterable[bytes | bytearray | memoryview]) -> list[Event]:
    events = []
    for piece in pieces:
        connection.receive_data(piece)
        events += drain(connection)
    return events


def whole(connection: Connection, data: bytes) -> list[Event]:
    return in_pieces(connection, [data])


def byte_by_byte(connection: Connection, data: bytes) -> list[Event]:
    return in_pieces(connection, (data[place : place + 1] for place in range(len(data))))


def undrained(connection: Connection, data: bytes) -> list[Event]:
    """Pass several reads before the first event is taken."""
    for place in range(0, len(data), 1000):
        connection.receive_data(memoryview(data)[place : place + 1000])
    return drain(connection)


def with_next_beginning(connection: Connection, data: bytes) -> list[Event]:
    events = in_pieces(connection, [bytearray(data + BEGINNING)])
    assert connection.held == len(BEGINNING)
    return events


FEEDS: Final[dict[str, Feed]] = {
    "whole": whole,
    "byte by byte": byte_by_byte,
    "undrained": undrained,
    "next frame's beginning attached": with_next_beginning,
}


def facts(events: Iterable[Event]) -> list[object]:
    """Return events as values that can be compared."""
    return [_fact(event) for event in events]


def _fact(event: Event) -> object:
    match event:
        case Request():
            return "request", event.command, event.data, event.needs_response, event.raw, _problem(event.problem)
        case Response():
            asked = event.request.request_id if event.request else None
            return "response", event.command, event.data, event.raw, asked, _problem(event.problem)
        case UnsolicitedResponse():
            return "unsolicited", event.raw, event.why
        case BytesSkipped() | FrameRefused() | NeedData.NEED_DATA:
            return event


def _problem(problem: PayloadError | None) -> str:
    return str(problem) if problem else ""


def host() -> Connection:
    return Connection(Role.HOST)


def guest() -> Connection:
    return Connection(Role.GUEST)
