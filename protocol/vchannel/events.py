"""What `Connection.next_event` returns, and what `Connection.send` takes.

Every byte that was received comes back in exactly one event: in `raw` of a `Request`, `Response`
or `UnsolicitedResponse`, or in `data` of a `BytesSkipped`. A `FrameRefused` only says why.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import Final, Literal, Self

import attrs
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
"""Random bits of a request id: as many as genuine ones show, the upper half of the field being zero."""


def unpredictable_id() -> int:
    """A request id that nobody can guess, never 0."""
    return secrets.randbits(ID_BITS) or 1


# The two classes below are made for every frame: attrs' frozen classes take three times as long to make, so these
# are frozen by agreement, and hold the frame's bytes instead of a field for each value that few ever ask for.


@define(eq=False)
class _Message:
    """What requests and responses share: the frame's bytes, and what every user of one asks for."""

    command: Command
    data: bytes
    raw: bytes = field(repr=False)
    problem: PayloadError | None = field(default=None, kw_only=True)

    @property
    def frame(self) -> Frame:
        """Every field of the frame."""
        return Frame.decode(self.raw)

    @property
    def request_id(self) -> int:
        return int.from_bytes(self.raw[:8], "little")

    @property
    def guest_uuid(self) -> bytes:
        """16 bytes. What a guest writes here is unknown; never take it for an identity."""
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
    """A question or a notification, received or to be sent: the peer's come as events, ours are made by `of`.

    `problem` says what is wrong with a received one's data, where its kind is known.
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
        """A request to send. Its id is unpredictable unless given.

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
        """The response to this request: it repeats its id, UUID, guest id, command, sub-command and reserved.

        Raises:
            MisuseError: more than 4032 bytes of data, or the request asks for no response.
        """
        if not self.needs_response:
            raise self.unasked()
        sub_command, reserved = REPEATED.unpack_from(self.raw, COMMAND_END)
        return Response(self.command, data, self.raw[:FLAGS_OFFSET] + tail(self.command, data, sub_command, reserved))

    def unasked(self) -> MisuseError:
        """The error of answering a request that asks for no response."""
        return MisuseError(
            f"request {self.command!r} asks for no response: look at its needs_response before answering"
        )


@define(eq=False)
class Response(_Message):
    """The answer to a request, received or to be sent: the peer's come as events, ours from `Request.reply`.

    `request` is the request of ours that a received one answers. `problem` says what is wrong with
    a received one's data, where its kind is known.
    """

    request: Request | None = field(default=None, repr=False)


def tail(command: int, data: bytes, sub_command: int = 1, reserved: int = 0) -> bytes:
    """A response's bytes from its flags on. They don't depend on who asked, so an answer can be prepared once.

    Raises:
        MisuseError: more than 4032 bytes of data, or no bytes.
    """
    return Frame(
        is_response=1, response_length=len(data), command=command, sub_command=sub_command, reserved=reserved, data=data
    ).encode()[FLAGS_OFFSET:]


class PreparedAnswer:
    """An answer to one command, made once and given to any number of requests by `Connection.answer`.

    Raises:
        MisuseError: more than 4032 bytes of data, or no bytes.
    """

    __slots__ = ("command", "data", "repeated", "tail")

    def __init__(self, command: Command, data: bytes) -> None:
        self.command = command
        self.data = data
        self.tail = tail(command, data)
        self.repeated = self.tail[COMMAND_OFFSET - FLAGS_OFFSET : HEADER_SIZE - FLAGS_OFFSET]
        """The bytes of command, sub-command and reserved: a request that has others gets an answer of its own."""


@frozen
class UnsolicitedResponse:
    """A response that answers no request which is still waiting: late, stale or made up. `why` says which is likely.

    Its data is not examined: `problem` of the `response` is None whatever the data is.
    """

    response: Response
    why: str

    @property
    def raw(self) -> bytes:
        return self.response.raw


class SkipReason(Enum):
    """Why bytes were skipped."""

    OUT_OF_STEP = "out of step"
    """They stood where a frame was due, or between it and the next header that convinces."""
    SILENCE = "silence"
    """The beginning of a frame whose rest did not come: `Connection.discard_partial` was called."""
    CLOSED = "closed"
    """The same at the connection's end."""


@frozen
class BytesSkipped:
    """Bytes that belong to no frame. `offset` counts the bytes received before them."""

    data: bytes = field(repr=lambda data: f"<{len(data)} bytes>")
    reason: SkipReason
    offset: int

    @property
    def count(self) -> int:
        return len(self.data)


@frozen
class FrameRefused:
    """A header that stood where a frame was due and is not believed.

    `refusal` names the first field that breaks a rule, and its value. The bytes follow in
    `BytesSkipped`; `offset` counts the bytes received before them.
    """

    refusal: Refusal
    header: bytes = attrs.field(repr=False)
    offset: int

    @property
    def field(self) -> str:
        return self.refusal.field

    @property
    def value(self) -> int:
        return self.refusal.value

    def __str__(self) -> str:
        return f"frame refused at byte {self.offset}: {self.refusal}"


class NeedData(Enum):
    """The only outcome that isn't an event: nothing more until more is received."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA

Event = Request | Response | UnsolicitedResponse | BytesSkipped | FrameRefused | Literal[NeedData.NEED_DATA]
"""Every outcome of `Connection.next_event`."""
