"""One end of one channel, without any input or output of its own.

The shell feeds what it reads to `receive_data`, takes events from `next_event` until `NEED_DATA`,
and writes what `send` returns. One connection per stream: a new stream starts with a new one.
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
"""The most skipped bytes in one event: what can be judged while less than a whole frame is held."""

_checked = CHECKED.unpack_from

# Made once: they are a third of what a new connection costs.
_members: Final[dict[type[HostCommand | GuestCommand], Callable[[int, int], Command]]] = {
    commands: {member.value: member for member in commands}.get for commands in (HostCommand, GuestCommand)
}


class Role(Enum):
    """Which end of the channel this is."""

    HOST = "host"
    GUEST = "guest"


class Connection:
    """The protocol's state for one stream.

    Args:
        role: `Role.HOST` answers `HostCommand` and asks `GuestCommand`; `Role.GUEST` the other way round.

    No input raises, whatever it is. What raises `MisuseError` is the caller's own mistake.
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
        self._chunks: list[bytes] = []  # received since, not yet joined to it
        self._in_step = False  # the byte at _offset follows a frame that convinced
        self._until_due = 0  # out of step: bytes from _offset to where a frame is due again
        self._scanned = 0  # and those of them that are known to begin no frame
        self._dropped: BytesSkipped | None = None  # the event of the last discard_partial

        self._outstanding = Outstanding()

        self._bytes_received = 0

    @property
    def held(self) -> int:
        """Bytes received that are in no event yet. After `NEED_DATA`, fewer than a frame's 4096."""
        return len(self._buffer) - self._offset + sum(map(len, self._chunks))

    @property
    def waiting(self) -> tuple[Request, ...]:
        """The requests sent that no response has answered and nobody has forgotten, oldest first."""
        return self._outstanding.waiting

    # -- receiving

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what was read from the stream: any number of bytes, cut anywhere.

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
        """What happened next in the bytes received.

        Returns one of:

        - `Request`: the peer asks or tells something.
        - `Response`: the peer answers the request of ours in its `request`.
        - `UnsolicitedResponse`: an answer to nothing that waits; to be dropped.
        - `FrameRefused`: a header is not believed; it says which field and value.
        - `BytesSkipped`: bytes that are in no frame.
        - `NEED_DATA`: all that was received is in events, but for less than a frame.

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
                # Don't hold what was read before, of which this may be the last few bytes.
                self._buffer, self._offset = buffer[start:], 0
            return NEED_DATA
        is_request, is_response, needs, request_length, response_length, number, sub_command, reserved = _checked(
            buffer, start + FLAGS_OFFSET
        )
        # `refusal` in the fewest operations, for the path of every frame: ored flags are 1 where each is 0 or 1.
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
        """Drop the beginning of a frame whose rest won't come; `next_event` then tells how much it was.

        For the shell's timer: the rest of a frame follows its beginning at once, or (after the
        guest closed its port, crashed or was reset midway) never. Also for the end of the stream,
        with `SkipReason.CLOSED`.

        Raises:
            MisuseError: there is more than the beginning of a frame.
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
        """Whether to accept a header that is only acceptable: behind a good frame, without a usual header near it.

        It vouches for no other: else a stream 4 bytes out of step would stay so for ever. Only a usual header counts,
        because the frame itself, read 4 bytes late, may convince.
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
        """Look for the next header that convinces, at most as far as the next frame would be due.

        The bytes passed over are handed out in pieces that end where the stream's content says,
        never where a read happened to end: before a header, where a frame is due again, and after
        `PIECE`, lest more than a frame be held while the decision is open.
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

    # -- responses to requests of ours

    def _match(self, response: Response) -> Response | UnsolicitedResponse:
        if isinstance(found := self._outstanding.take(response), str):
            return UnsolicitedResponse(response, found)
        response.request = found
        # Not before: parsing costs most, and a guest may send any number of answers to nothing.
        response.problem = self._examine(response.command, response.data, "answers")
        return response

    def forget(self, request: Request) -> bool:
        """Give a sent request up: its response, should it still come, will be unsolicited.

        Returns whether it was still waiting.
        """
        return self._outstanding.forget(request)

    # -- sending

    def send(self, event: Request | Response) -> bytes:
        """The bytes of a request or a response, one whole frame; write them with one call.

        A request that needs a response waits for it from here on, until it comes or `forget`.

        Raises:
            MisuseError: its command is of the other end's namespace, or its id waits already.
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
        """``send(request.reply(prepared.data))`` for the path of every frame: one slice, one concatenation.

        Raises:
            MisuseError: the answer was prepared for another command, or the request asks for none.
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
