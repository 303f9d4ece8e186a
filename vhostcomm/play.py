"""A capture's guest, played to a daemon over its socket."""

from __future__ import annotations

import socket
import time
from typing import Final

from attrs import define, field

from vchannel import NEED_DATA, Connection, Frame, HostCommand, Request, Response, Role, SkipReason, UnsolicitedResponse
from vchannel.errors import shorten
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord, command_name
from vhostcomm.probe import UnreachableError, connect

COMPARED: Final = (
    "request_id", "guest_uuid", "guest_id", "is_request", "is_response", "needs_response", "request_length",
    "response_length", "command", "sub_command", "reserved", "data", "padding",
)  # fmt: skip

IDENTITY: Final = frozenset({"data", "response_length"})
"""What may differ where another identity is served."""

SETTLE: Final = 0.2
"""Seconds to wait for replies that nobody expects, at the end."""

SILENCE: Final = 1.5
"""Seconds to be silent after half a frame, so that the daemon drops it; it does by default after 1."""


@define
class Played:
    """What came of it: differences, each in a line, the number of replies compared, and what wasn't played."""

    differences: list[str] = field(factory=list)
    compared: int = 0
    notes: list[str] = field(factory=list)


class _Guest:
    """The guest's end: sends what the capture says, and keeps the daemon's replies by id."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connection = Connection(Role.GUEST)
        self.replies: dict[tuple[int, int], list[Frame]] = {}

    def send(self, raw: bytes, timeout: float) -> None:
        self._sock.settimeout(timeout)
        try:
            self._sock.sendall(raw)
        except OSError as error:
            raise UnreachableError(f"the connection ended: {error}", "The daemon's log says why.") from None

    def receive(self, timeout: float) -> bool:
        """Take what comes within a time; False if nothing does."""
        self._sock.settimeout(max(timeout, 0.001))
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            return False
        if not data:
            raise UnreachableError("the daemon closed the connection", "Its log says why.")
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) is not NEED_DATA:
            if isinstance(event, UnsolicitedResponse | Response):
                frame = Frame.decode(event.raw)
                self.replies.setdefault((frame.request_id, frame.command), []).append(frame)
            elif isinstance(event, Request):
                continue  # a question of the daemon's own
        return True

    def reply(self, key: tuple[int, int], timeout: float) -> Frame | None:
        end = time.monotonic() + timeout
        while not self.replies.get(key):
            left = end - time.monotonic()
            if left <= 0 or not self.receive(left):
                return None
        return self.replies[key].pop(0)


def play(capture: Capture, address: str, *, timeout: float = 5.0, ignore_identity: bool = False) -> Played:
    """Send the guest's side in the capture's order; wait for each reply where the capture has it, and compare.

    Args:
        capture: which.
        address: the daemon's socket.
        timeout: seconds to wait for a reply.
        ignore_identity: let the content of answers to questions of identity differ.

    Raises:
        UnreachableError: nobody listens, or the connection ended.
    """
    result = Played()
    with connect(address) as sock:
        guest = _Guest(sock)
        for line, record in enumerate(capture.records, start=2):
            _step(guest, line, record, result, timeout, ignore_identity)
        while guest.receive(SETTLE):
            pass
        for (_, command), frames in guest.replies.items():
            result.differences += [f"   -  a reply that the capture doesn't have: command {command}" for _ in frames]
    return result


def _step(guest: _Guest, line: int, record: Record, result: Played, timeout: float, ignore_identity: bool) -> None:
    if record.direction is Direction.TO_HOST:
        if _answers_the_host(record):
            result.notes.append(f"line {line}: an answer to the host's own question is left out: it wasn't asked")
            return
        guest.send(record.raw, timeout)
        if isinstance(record, SkippedRecord) and record.why is SkipReason.SILENCE:
            time.sleep(SILENCE)
        return
    if not isinstance(record, FrameRecord) or record.frame.is_request:
        result.notes.append(f"line {line}: a question of the host's own is left out")
        return
    expected = record.frame
    found = guest.reply((expected.request_id, expected.command), timeout)
    name = command_name(record) or f"command {expected.command}"
    result.compared += 1
    if found is None:
        result.differences.append(f"{line:4}  {name}: no reply within {timeout:g} s")
        return
    skipped = IDENTITY if ignore_identity and _is_identity(expected) else frozenset()
    for each in COMPARED:
        a, b = getattr(expected, each), getattr(found, each)
        if a != b and each not in skipped:
            result.differences.append(f"{line:4}  {name} {each}: {shorten(a)} in the capture, {shorten(b)} served")


def _answers_the_host(record: Record) -> bool:
    return isinstance(record, FrameRecord) and not record.refused and record.frame.is_response == 1


def _is_identity(frame: Frame) -> bool:
    return frame.command in _IDENTITY_COMMANDS


_IDENTITY_COMMANDS: Final = frozenset(HostCommand) - {HostCommand.NETWORK_RESULT, HostCommand.HOST_VERSION_SECOND}
