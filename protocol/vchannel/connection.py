"""One end of one channel, without any input or output.

The caller passes what it reads to `receive_data`, gets events from `next_event` until `NEED_DATA`, and writes what
`send` returns. Each stream needs a new connection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Literal

from vchannel.commands import Command, GuestCommand, HostCommand
from vchannel.data import data_problem
from vchannel.errors import MisuseError, PayloadError, shorten
from vchannel.events import (
    NEED_DATA,
    BytesSkipped,
    Event,
    FrameRefused,
    PreparedAnswer,
    Request,
    Response,
    SkipReason,
    UnsolicitedResponse,
)
from vchannel.frame import (
    CHECKED,
    COMMAND_OFFSET,
    DATA_SIZE,
    FLAGS_OFFSET,
    FRAME_SIZE,
    HEADER_SIZE,
    SUB_COMMAND_LIMIT,
    find_header,
    refusal,
)
from vchannel.outstanding import Outstanding

PIECE: Final = FRAME_SIZE - HEADER_SIZE
"""Maximum skipped bytes in one event: as many as can be judged while less than a whole frame is buffered."""

_checked = CHECKED.unpack_from

# Made once, because they are a third of the cost of a new connection.
_members: Final[dict[type[HostCommand | GuestCommand], Callable[[int, int], Command]]] = {
    commands: {member.value: member for member in commands}.get for commands in (HostCommand, GuestCommand)
}


class Role(Enum):
    """The end of the channel that a connection is."""

    HOST = "host"
    GUEST = "guest"


class Connection:
    """The protocol's state for one stream.

    No input raises an exception. `MisuseError` is a mistake of the caller.

    Args:
        role: `Role.HOST` answers `HostCommand` and sends `GuestCommand`; `Role.GUEST` is the reverse.
    """

    __slots__ = (
        "_asked", "_asking", "_buffer", "_bytes_received", "_chunks", "_dropped", "_in_step", "_incoming", "_offset",
        "_outgoing", "_outstanding", "_scanned", "_until_due", "role",
    )  # fmt: skip

    def __init__(self, role: Role) -> None:
        if not isinstance(role, Role):
            raise MisuseError(f"the role is {shorten(role)}: it is Role.HOST or Role.GUEST")
        self.role = role
        incoming, outgoing = (HostCommand, GuestCommand) if role is Role.HOST else (GuestCommand, HostCommand)
        self._asked, self._asking = _members[incoming], _members[outgoing]
        self._incoming, self._outgoing = incoming, outgoing

        self._buffer = b""  # bytes not yet in an event, from _offset on
        self._offset = 0
        self._chunks: list[bytes] = []  # received later, not yet joined to it
        self._in_step = False  # the byte at _offset follows a convincing frame
        self._until_due = 0  # out of step: bytes from _offset to the next expected frame
        self._scanned = 0  # those of them at which no frame begins
        self._dropped: BytesSkipped | None = None  # the event of the last discard_partial

        self._outstanding = Outstanding()

        self._bytes_received = 0

    @property
    def held(self) -> int:
        """Number of received bytes that are in no event yet. After `NEED_DATA`, less than a frame's 4096."""
        return len(self._buffer) - self._offset + sum(map(len, self._chunks))

    @property
    def waiting(self) -> tuple[Request, ...]:
        """The sent requests without a response, oldest first; not those that were forgotten."""
        return self._outstanding.waiting

    # -- receiving

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Add data from the stream: any number of bytes, split anywhere.

        Raises:
            MisuseError: `data` is no bytes.
        """
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise MisuseError(f"received {shorten(data)}: it takes bytes, a bytearray or a memoryview")
            data = bytes(data)  # the caller may reuse its buffer
        self._bytes_received += len(data)
        if self._offset == len(self._buffer) and not self._chunks:
            self._buffer = data
            self._offset = 0
        elif data:
            self._chunks.append(data)

    def next_event(self) -> Event:
        """Return the next event in the received bytes.

        Returns one of:

        - `Request`: a question or a notification of the peer.
        - `Response`: the peer's answer to our own request, which is its `request`.
        - `UnsolicitedResponse`: a response to no waiting request; ignore it.
        - `FrameRefused`: an implausible header, with the field and value.
        - `BytesSkipped`: bytes outside any frame.
        - `NEED_DATA`: all received bytes are in events, except less than a frame.

        Any exception from here is a bug in this package.
        """
        if self._dropped is not None:
            dropped, self._dropped = self._dropped, None
            return dropped
        if self._chunks:
            self._buffer = b"".join((self._buffer[self._offset :], *self._chunks))
            self._offset = 0
            self._chunks.clear()
        if self._until_due:
            return self._skip()
        buffer, start = self._buffer, self._offset
        end = start + FRAME_SIZE
        if end > len(buffer):
            if start:
                # Release the earlier data; these may be its last few bytes.
                self._buffer, self._offset = buffer[start:], 0
            return NEED_DATA
        is_request, is_response, needs, request_length, response_length, number, sub_command, reserved = _checked(
            buffer, start + FLAGS_OFFSET
        )
        # `refusal` in the fewest operations, since every frame passes here. Flags that are 0 or 1 are 1 when ored.
        if (
            is_request | is_response | needs != 1
            or is_request == is_response
            or request_length | response_length < 0
            or request_length > DATA_SIZE
            or response_length > DATA_SIZE
            or not 0 < sub_command <= SUB_COMMAND_LIMIT
            or reserved != 0
        ):
            if not self._is_odd_but_vouched_for():
                return self._refuse()
            self._in_step = False
        else:
            self._in_step = True
        self._offset = end
        if is_request:
            command = self._asked(number, number)
            if not request_length:
                return Request(command, b"", buffer[start:end], needs == 1)
            data = buffer[start + HEADER_SIZE : start + HEADER_SIZE + request_length]
            return Request(command, data, buffer[start:end], needs == 1, problem=self._examine(command, data, "asks"))
        data = buffer[start + HEADER_SIZE : start + HEADER_SIZE + response_length]
        return self._match(Response(self._asking(number, number), data, buffer[start:end]))

    def discard_partial(self, reason: SkipReason = SkipReason.SILENCE) -> None:
        """Drop an incomplete frame whose rest won't come; `next_event` then returns its bytes.

        Call it after a timeout: the rest of a frame follows at once or never, if the guest closed its port, crashed or
        was reset. Also call it at the end of the stream, with `SkipReason.CLOSED`.

        Raises:
            MisuseError: there is more than an incomplete frame.
        """
        if self.held >= FRAME_SIZE or self._dropped is not None:
            raise MisuseError("there are events to take first: call next_event() until it returns NEED_DATA")
        if self.held == 0:
            return
        data = b"".join((self._buffer[self._offset :], *self._chunks))
        self._dropped = BytesSkipped(data, reason, self._bytes_received - len(data))
        self._buffer, self._offset = b"", 0
        self._chunks.clear()
        self._in_step = False
        self._until_due = self._scanned = 0

    # -- out of step

    def _is_odd_but_vouched_for(self) -> bool:
        """Return whether to accept an unusual header: after a good frame, if there is no usual header near it.

        The frame then does not justify the next one; otherwise a stream 4 bytes out of step would stay so for ever.
        Only a usual header counts, because the same frame, read 4 bytes late, may convince.
        """
        header = self._buffer[self._offset : self._offset + HEADER_SIZE]
        return (
            self._in_step
            and refusal(header, convincing=False) is None
            and find_header(self._buffer, self._offset + 1, self._offset + PIECE + 1, usual=True) < 0
        )

    def _refuse(self) -> FrameRefused:
        header = self._buffer[self._offset : self._offset + HEADER_SIZE]
        why = refusal(header, convincing=True)
        assert why is not None, "the check in next_event and refusal() disagree"
        self._in_step = False
        self._until_due = FRAME_SIZE
        self._scanned = 1
        return FrameRefused(why, header, self._bytes_received - self.held)

    def _skip(self) -> Event:
        """Search the next convincing header, at most up to the next expected frame.

        Skipped bytes are returned in pieces that depend on the content, never on how it was read. A piece ends before a
        header, at an expected frame, or after `PIECE` bytes, so that less than a frame is buffered.
        """
        start = self._offset
        piece = min(self._until_due, PIECE)
        stop = min(start + piece, len(self._buffer) - HEADER_SIZE + 1)
        if stop > start + self._scanned:
            found = find_header(self._buffer, start + self._scanned, stop)
            if found >= 0:
                return self._skipped(found - start, self._until_due)
            self._scanned = stop - start
        if self._scanned < piece:
            self._buffer, self._offset = self._buffer[start:], 0
            return NEED_DATA
        return self._skipped(piece, piece)

    def _skipped(self, count: int, toward_due: int) -> Event:
        offset = self._bytes_received - self.held
        data = self._buffer[self._offset : self._offset + count]
        self._offset += count
        self._until_due -= toward_due
        self._scanned = 0
        return BytesSkipped(data, SkipReason.OUT_OF_STEP, offset) if data else self.next_event()

    def _examine(self, command: Command, data: bytes, direction: Literal["asks", "answers"]) -> PayloadError | None:
        return None if type(command) is int else data_problem(getattr(command, direction), data)

    # -- responses to our own requests

    def _match(self, response: Response) -> Response | UnsolicitedResponse:
        if isinstance(found := self._outstanding.take(response), str):
            return UnsolicitedResponse(response, found)
        response.request = found
        # Only now: parsing costs most, and a guest may send any number of unsolicited responses.
        response.problem = self._examine(response.command, response.data, "answers")
        return response

    def forget(self, request: Request) -> bool:
        """Stop waiting for a request's response; a later one is unsolicited.

        Returns whether it was still waiting.
        """
        return self._outstanding.forget(request)

    # -- sending

    def send(self, event: Request | Response) -> bytes:
        """Return the bytes of a request or response, one whole frame. Write them with one call.

        A request that needs a response waits for it until it arrives, or until `forget`.

        Raises:
            MisuseError: its command is of the other end's namespace, or its id is already waiting.
        """
        if len(getattr(event, "raw", b"")) != FRAME_SIZE:
            raise MisuseError(f"send({shorten(event)}): it takes what Request.of() and Request.reply() make")
        if isinstance(event, Response):
            if isinstance(event.command, self._outgoing):
                raise self._wrong_namespace(event.command, "answers", self._incoming)
            return event.raw
        if isinstance(event.command, self._incoming):
            raise self._wrong_namespace(event.command, "asks", self._outgoing)
        self._outstanding.add(event)
        return event.raw

    def answer(self, request: Request, prepared: PreparedAnswer) -> bytes:
        """Return ``send(request.reply(prepared.data))`` with one slice and one concatenation, for the hot path.

        Raises:
            MisuseError: the answer was prepared for another command, or the request needs no response.
        """
        raw = request.raw
        if not request.needs_response:
            raise request.unasked()
        if raw[COMMAND_OFFSET:HEADER_SIZE] != prepared.repeated:
            if request.command != prepared.command:
                raise MisuseError(f"an answer to command {prepared.command} for a request of {request.command}")
            return self.send(request.reply(prepared.data))
        return raw[:FLAGS_OFFSET] + prepared.tail

    def _wrong_namespace(self, command: Command, verb: str, right: type[HostCommand | GuestCommand]) -> MisuseError:
        return MisuseError(f"{command!r}: the {self.role.value}'s end {verb} commands of {right.__name__}")
