"""The trace of qemu-host: requests and answers as lines on standard output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vchannel import (
    Command,
    Event,
    Frame,
    GuestCommand,
    HostCommand,
    Request,
    Response,
    UnsolicitedResponse,
    decode_text,
)
from vhostcomm.channel.calls import by_number
from vhostcomm.log.logs import Log
from vhostcomm.log.sink import Sink, write_all
from vhostcomm.text import escape

DATA_SHOWN: Final = 5000
"""Maximum characters of data in a line: more than a frame can have."""


class LineTrace:
    """Writes a line for each message, without ever waiting for the reader.

    ::

        Received: <name> [<command>] <data>     a request, notification or answer of the guest
        Replied: <data> [<command>]             an answer to the guest
        Request: <name> [<command>]             a request to the guest

    Args:
        fd: the descriptor to write to.
        log: for warnings about lost lines.
        asked: called with the command of each request of the guest.
    """

    def __init__(self, fd: int, log: Log, asked: Callable[[Command], None]) -> None:
        self._fd = fd
        self._log = log
        self._asked = asked
        self._lost = 0
        self.sink: Sink[str] = Sink(self._write, "trace", self._failed)

    def received(self, event: Event) -> None:
        message = event.response if isinstance(event, UnsolicitedResponse) else event
        if isinstance(message, Request | Response):  # others are logged as errors
            self._line("Received", message.command, message.data)
        if isinstance(message, Request):
            self._asked(message.command)

    def sent(self, raw: bytes) -> None:
        frame = Frame.decode(raw)
        if frame.is_request:
            self._line("Request", by_number(frame.command), frame.data)
        else:
            self.sink.put(" ".join(filter(None, ("Replied:", _shown(frame.data), f"[{frame.command}]"))))

    def _line(self, what: str, command: Command, data: bytes) -> None:
        self.sink.put(" ".join(filter(None, (f"{what}:", name_of(command), f"[{int(command)}]", _shown(data)))))

    def _write(self, lines: list[str]) -> None:
        lost = self.sink.lost - self._lost
        if lost:
            self._lost += lost
            self._log.warning("trace lines lost: standard output is read too slowly", lines=lost)
        write_all(self._fd, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))

    def _failed(self, error: OSError) -> None:
        self._log.warning("trace ended: standard output can't be written", why=error.strerror)


def name_of(command: Command) -> str:
    """Return the name of a command in words."""
    if isinstance(command, HostCommand | GuestCommand):
        return command.name.replace("_", " ").capitalize()
    return "Unknown"


def _shown(data: bytes) -> str:
    return escape(decode_text(data), DATA_SHOWN)
