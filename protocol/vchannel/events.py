"""The events of `Connection.next_event`, which are also the arguments of `Connection.send`.

Every received byte is in exactly one event: in `raw` of a `Request`, `Response` or `UnsolicitedResponse`, or in `data`
of a `BytesSkipped`. A `FrameRefused` has only the reason.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import Final, Literal, Self

from attrs import define, field, frozen

from vchannel.commands import Command
from vchannel.data import decode_text
from vchannel.errors import MisuseError, PayloadError
from vchannel.frame import (
    COMMAND_END,
    COMMAND_OFFSET,
    FLAGS_OFFSET,
    HEADER_SIZE,
    NIL_UUID,
    REPEATED,
    USUAL_GUEST_ID,
    Frame,
    Refusal,
)

ID_BITS: Final = 32
"""Random bits of a request id: as many as genuine ids have, whose upper half is zero."""


def unpredictable_id() -> int:
    """Return a request id that a peer can't guess; never 0."""
    return secrets.randbits(ID_BITS) or 1


# The two classes below are made for every frame. attrs' frozen classes take three times as long to make, so these are
# frozen by convention. They keep the frame's bytes instead of many rarely used fields.


@define(eq=False)
class _Message:
    """The common part of requests and responses: the frame's bytes and the most used fields."""

    command: Command
    data: bytes
    raw: bytes = field(repr=False)
    problem: PayloadError | None = field(default=None, kw_only=True)

    @property
    def frame(self) -> Frame:
        """All fields of the frame."""
        return Frame.decode(self.raw)

    @property
    def request_id(self) -> int:
        return int.from_bytes(self.raw[:8], "little")

    @property
    def guest_uuid(self) -> bytes:
        """16 bytes. It is unknown what a guest writes here; never use it as an identity."""
        return self.raw[8:24]

    @property
    def guest_id(self) -> int:
        return int.from_bytes(self.raw[24:32], "little")

    @property
    def text(self) -> str:
        """The data as text; see `decode_text`."""
        return decode_text(self.data)


@define(eq=False)
class Request(_Message):
    """A question or a notification: an event if it is the peer's; make your own with `of`.

    `problem` describes invalid data of a received request whose type is known.
    """

    needs_response: bool = True

    @classmethod
    def of(
        cls,
        command: Command,
        data: bytes = b"",
        *,
        needs_response: bool = True,
        guest_id: int = USUAL_GUEST_ID,
        guest_uuid: bytes = NIL_UUID,
        request_id: int | None = None,
    ) -> Self:
        """Make a request to send. Its id is unpredictable unless given.

        Raises:
            MisuseError: a value doesn't fit into a frame, or the id is 0; the message names it.
        """
        if request_id == 0:
            raise MisuseError(
                "request_id is 0: a peer that doesn't repeat ids may send that; leave it out for a good one"
            )
        frame = Frame(
            unpredictable_id() if request_id is None else request_id, guest_uuid, guest_id, 1, 0, int(needs_response),
            len(data), 0, command, data=data,
        )  # fmt: skip
        return cls(command, data, frame.encode(), needs_response)

    def reply(self, data: bytes = b"") -> Response:
        """Make the response to this request, with its id, UUID, guest id, command, sub-command and reserved field.

        Raises:
            MisuseError: more than 4032 bytes of data, or the request needs no response.
        """
        if not self.needs_response:
            raise self.unasked()
        sub_command, reserved = REPEATED.unpack_from(self.raw, COMMAND_END)
        return Response(self.command, data, self.raw[:FLAGS_OFFSET] + tail(self.command, data, sub_command, reserved))

    def unasked(self) -> MisuseError:
        """Return the error for answering a request that needs no response."""
        return MisuseError(
            f"request {self.command!r} asks for no response: look at its needs_response before answering"
        )


@define(eq=False)
class Response(_Message):
    """The answer to a request: an event if it is the peer's; make your own with `Request.reply`.

    `request` is our own request that a received response answers. `problem` describes invalid data of a received
    response whose type is known.
    """

    request: Request | None = field(default=None, repr=False)


def tail(command: int, data: bytes, sub_command: int = 1, reserved: int = 0) -> bytes:
    """Return a response's bytes from its flags on. They don't depend on the request, so they can be prepared once.

    Raises:
        MisuseError: more than 4032 bytes of data, or `data` is not bytes.
    """
    return Frame(
        is_response=1, response_length=len(data), command=command, sub_command=sub_command, reserved=reserved, data=data
    ).encode()[FLAGS_OFFSET:]


class PreparedAnswer:
    """An answer to one command, made once, for any number of requests: see `Connection.answer`.

    Raises:
        MisuseError: more than 4032 bytes of data, or `data` is not bytes.
    """

    __slots__ = ("command", "data", "repeated", "tail")

    def __init__(self, command: Command, data: bytes) -> None:
        self.command = command
        self.data = data
        self.tail = tail(command, data)
        self.repeated = self.tail[COMMAND_OFFSET - FLAGS_OFFSET : HEADER_SIZE - FLAGS_OFFSET]
        """The bytes of command, sub-command and reserved; a request with other values can't have this answer."""


@frozen
class UnsolicitedResponse:
    """A response to no waiting request: late, stale or made up. `why` is the likely reason.

    Its data is not examined, so `problem` of the `response` is always None.
    """

    response: Response
    why: str

    @property
    def raw(self) -> bytes:
        return self.response.raw


class SkipReason(Enum):
    """Why bytes were skipped."""

    OUT_OF_STEP = "out of step"
    """They were in place of a frame, or between it and the next convincing header."""
    SILENCE = "silence"
    """They began a frame that never ended: `Connection.discard_partial` was called."""
    CLOSED = "closed"
    """The same at the connection's end."""


@frozen
class BytesSkipped:
    """Bytes outside any frame. `offset` is the number of bytes received before them."""

    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    reason: SkipReason
    offset: int

    @property
    def count(self) -> int:
        return len(self.data)


@frozen
class FrameRefused:
    """An implausible header in place of a frame.

    `refusal` has the first field that breaks a rule, and its value. The bytes follow in `BytesSkipped`; `offset` is the
    number of bytes received before them.
    """

    refusal: Refusal
    header: bytes = field(repr=False)
    offset: int

    def __str__(self) -> str:
        return f"frame refused at byte {self.offset}: {self.refusal}"


class NeedData(Enum):
    """The only outcome without an event: `next_event` needs more data."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA

Event = Request | Response | UnsolicitedResponse | BytesSkipped | FrameRefused | Literal[NeedData.NEED_DATA]
"""Every outcome of `Connection.next_event`."""
