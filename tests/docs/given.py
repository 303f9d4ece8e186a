"""Names that the Python blocks of the documentation use without defining them."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from typing import Final

from vchannel import NEED_DATA, Connection, HostCommand, Request, Response, Role


def stream(code: str) -> None:
    """`stream` is a socket with a guest at its other end, which asks for its serial number."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guest = Connection(Role.GUEST)
        theirs.sendall(guest.send(Request.of(HostCommand.GUEST_SERIAL)))
        exec(compile(code, "page", "exec"), {"stream": ours})
        guest.receive_data(theirs.recv(65536))
    answer = guest.next_event()
    assert isinstance(answer, Response)
    assert answer.data == b"0" * 13 + b"\0"


def recorder(code: str) -> None:
    """A host's `connection`, an `event` of it, a frame that it sent, and a `file`."""
    guest, host = Connection(Role.GUEST), Connection(Role.HOST)
    host.receive_data(guest.send(Request.of(HostCommand.GUEST_SERIAL)))
    event = host.next_event()
    assert isinstance(event, Request)
    raw = host.send(event.reply(b"0" * 13 + b"\0"))
    assert host.next_event() is NEED_DATA
    file = io.StringIO()
    exec(
        compile(code, "page", "exec"),
        {"connection": host, "event": event, "raw": raw, "file": file, "seconds": 0.5},
    )
    lines = file.getvalue().splitlines()
    assert [line.split('"dir": "')[1].split('"')[0] for line in lines] == ["guest>host", "host>guest"]


GIVEN: Final[dict[str, Callable[[str], None]]] = {"stream": stream, "recorder": recorder}
"""The definitions by the name in the page's comment."""
