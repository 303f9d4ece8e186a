"""Invariants for any input. Each target accepts bytes, and an exception is a bug."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve, frozen

from tests.vchannel.feeding import drain, facts
from vchannel import (
    FRAME_SIZE,
    HEADER_SIZE,
    BytesSkipped,
    Connection,
    Event,
    GuestCommand,
    HostCommand,
    Request,
    Response,
    Role,
    UnsolicitedResponse,
)
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, format_capture
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.redact_capture import redact
from vhostcomm.capture.show import transcript
from vhostcomm.errors import CaptureError

STEPS_MOST: Final = 64
"""The most steps of an input. Longer inputs show no more than several short ones."""


class Input:
    """A fuzzer's bytes, followed by zeros without end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._place : self._place + size]
        self._place += size
        return taken.ljust(size, b"\0")

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size), "little")


@frozen
class Ask:
    """Our end sends a request."""

    request: Request


@frozen
class Cut:
    """A read ends here."""


@frozen
class Forget:
    """Our end gives up its oldest request."""


@frozen
class Silence:
    """No more bytes came for a while."""


Step = bytes | Ask | Cut | Forget | Silence


def steps(given: Input, role: Role) -> Iterator[Step]:
    """Return the steps of a connection. Whole frames are made here, because no fuzzer guesses 4096 bytes."""
    theirs, ours = (HostCommand, GuestCommand) if role is Role.HOST else (GuestCommand, HostCommand)
    asked: list[Request] = []
    for _ in range(STEPS_MOST):
        if not given:
            return
        match given.number() % 8:
            case 0:
                yield (given.take(HEADER_SIZE) + given.take(given.number())).ljust(FRAME_SIZE, b"\0")
            case 1:
                command = list(theirs)[given.number() % len(theirs)]
                data, request_id, needs = given.take(given.number()), 1 + given.number(), bool(given.number() % 2)
                yield Request.of(command, data, request_id=request_id, needs_response=needs).raw
            case 2:
                yield given.take(given.number())
            case 3:
                yield bytes(given.number(2) % (FRAME_SIZE + HEADER_SIZE))
            case 4:
                yield Cut()
            case 5:
                asked.append(Request.of(list(ours)[given.number() % len(ours)], request_id=len(asked) + 1))
                yield Ask(asked[-1])
            case 6:
                if asked:
                    yield asked[given.number() % len(asked)].reply(given.take(given.number())).raw
            case _:
                yield Forget() if given.number() % 2 else Silence()


def happens(role: Role, made: list[Step]) -> tuple[Connection, list[Event]]:
    """Return the events of a connection after these steps."""
    connection, events = Connection(role), []
    for step in made:
        match step:
            case bytes():
                connection.receive_data(step)
                continue
            case Cut():
                pass
            case Ask(request):
                events += drain(connection)
                connection.send(request)
            case Forget():
                events += drain(connection)
                if connection.waiting:
                    assert connection.forget(connection.waiting[0])
            case Silence():
                events += drain(connection)
                connection.discard_partial()
        events += drain(connection)
    events += drain(connection)
    connection.discard_partial()
    events += drain(connection)
    return connection, events


def raw(event: Event) -> bytes:
    """Return an event's bytes of the stream."""
    if isinstance(event, BytesSkipped):
        return event.data
    return event.raw if isinstance(event, Request | Response | UnsolicitedResponse) else b""


def connection(data: bytes) -> None:
    """Every byte is in one event, in order, and the events do not depend on the boundaries of reads."""
    given = Input(data)
    role = Role.GUEST if given.number() % 2 else Role.HOST
    made = list(steps(given, role))
    ended, events = happens(role, made)
    assert b"".join(map(raw, events)) == b"".join(step for step in made if isinstance(step, bytes))
    assert ended.held == 0
    uncut, again = happens(role, [step for step in made if not isinstance(step, Cut)])
    assert facts(events) == facts(again)
    assert ended.waiting == uncut.waiting


def capture(data: bytes) -> None:
    """A file is a valid capture or causes an error with a line number; a capture is unchanged after writing and reading."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="backslashreplace")  # as the command reads it
    try:
        read = read_capture(text)
    except CaptureError:
        return
    again = read_capture(format_capture(read))
    assert again.header == read.header
    assert again.records == tuple(evolve(each, time=round(each.time, 6)) for each in read.records)
    assert list(compare(read, again, request_ids=True)) == []
    assert len(list(transcript(read))) >= len(read.records)
    _redacted(read)


def _redacted(read: Capture) -> None:
    redacted = redact(read)
    assert read_capture(format_capture(redacted)).records == tuple(
        evolve(each, time=round(each.time, 6)) for each in redacted.records
    )


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"connection": connection, "capture": capture}
