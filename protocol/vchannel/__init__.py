"""The guest_command protocol of Virtual DSM's `vchannel` port, without input or output of its own.

    connection = Connection(Role.HOST)
    connection.receive_data(stream.recv(65536))
    while (event := connection.next_event()) is not NEED_DATA:
        match event:
            case Request(command=HostCommand.GUEST_SERIAL, needs_response=True):
                stream.sendall(connection.send(event.reply(encode_text("0000000000000"))))

The layout, both namespaces, the evidence for each claim and the unknowns are in ``protocol/README.md``.
"""

from vchannel.commands import Command, GuestCommand, HostCommand, Kind, Known
from vchannel.connection import Connection, Role
from vchannel.data import (
    NEVER,
    NO_NUL,
    TEXT_SIZE,
    decode_integer,
    decode_json,
    decode_text,
    encode_integer,
    encode_json,
    encode_text,
)
from vchannel.errors import MisuseError, PayloadError, VchannelError
from vchannel.events import (
    NEED_DATA,
    BytesSkipped,
    Event,
    FrameRefused,
    NeedData,
    PreparedAnswer,
    Request,
    Response,
    SkipReason,
    UnsolicitedResponse,
    unpredictable_id,
)
from vchannel.frame import (
    DATA_SIZE,
    FRAME_SIZE,
    HEADER_FIELDS,
    HEADER_SIZE,
    NIL_UUID,
    USUAL_GUEST_ID,
    Frame,
    Refusal,
    refusal,
)
from vchannel.messages import (
    CpuInfo,
    GuestInformation,
    HostVersion,
    Interface,
    NetworkDetail,
    NetworkResult,
    VmmVersion,
)

__all__ = [
    "DATA_SIZE",
    "FRAME_SIZE",
    "HEADER_FIELDS",
    "HEADER_SIZE",
    "NEED_DATA",
    "NEVER",
    "NIL_UUID",
    "NO_NUL",
    "TEXT_SIZE",
    "USUAL_GUEST_ID",
    "BytesSkipped",
    "Command",
    "Connection",
    "CpuInfo",
    "Event",
    "Frame",
    "FrameRefused",
    "GuestCommand",
    "GuestInformation",
    "HostCommand",
    "HostVersion",
    "Interface",
    "Kind",
    "Known",
    "MisuseError",
    "NeedData",
    "NetworkDetail",
    "NetworkResult",
    "PayloadError",
    "PreparedAnswer",
    "Refusal",
    "Request",
    "Response",
    "Role",
    "SkipReason",
    "UnsolicitedResponse",
    "VchannelError",
    "VmmVersion",
    "decode_integer",
    "decode_json",
    "decode_text",
    "encode_integer",
    "encode_json",
    "encode_text",
    "refusal",
    "unpredictable_id",
]
