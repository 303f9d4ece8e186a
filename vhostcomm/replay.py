"""Replay the guest's side of a capture to a daemon's socket."""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress
from typing import Final

from attrs import define, field, fields_dict

from vchannel import NEED_DATA, Connection, Frame, HostCommand, Response, Role, SkipReason, UnsolicitedResponse
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord, command_name
from vhostcomm.capture.show import quoted
from vhostcomm.probe import EndedError, UnreachableError, connect

IDENTITY: Final = frozenset({"data", "response_length"})
"""Fields that may differ if the daemon serves another identity."""

IDENTITY_COMMANDS: Final = frozenset(HostCommand) - {HostCommand.NETWORK_RESULT, HostCommand.HOST_VERSION_SECOND}
"""Questions whose answers have them."""

SETTLE: Final = 0.2
"""Seconds to wait for unexpected replies at the end."""

SILENCE: Final = 1.5
"""Seconds to be silent after half a frame, so that the daemon drops it: by default it does after 1."""


@define
class Replayed:
    """The result: one line for each difference, the number of compared replies, and notes on skipped records."""

    differences: list[str] = field(factory=list)
    compared: int = 0
    notes: list[str] = field(factory=list)


class _Guest:
    """The guest's end of the connection: sends records, and keeps the daemon's replies by id."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.replies: dict[tuple[int, int], list[Frame]] = {}
        self.connect()

    def connect(self) -> None:
        self.ended = False
        self._connection = Connection(Role.GUEST)
        self._sock = connect(self._address)

    def close(self) -> None:
        self._sock.close()

    def send(self, raw: bytes, timeout: float) -> None:
        self._sock.settimeout(timeout)
        try:
            self._sock.sendall(raw)
        except OSError as error:
            raise EndedError(str(error.strerror or error)) from None

    def receive(self, timeout: float) -> bool:
        """Wait for data and process it. Return False if none came in time."""
        self._sock.settimeout(max(timeout, 0.001))
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            return False
        except OSError as error:
            raise EndedError(str(error.strerror or error)) from None
        if not data:
            raise EndedError("the daemon closed it")
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) is not NEED_DATA:
            if isinstance(event, UnsolicitedResponse | Response):
                frame = Frame.decode(event.raw)
                self.replies.setdefault((frame.request_id, frame.command), []).append(frame)
        return True

    def end(self, timeout: float) -> None:
        """Close the sending side as a guest does, and read replies until the daemon closes too."""
        self.ended = True
        until = time.monotonic() + timeout
        with suppress(OSError, UnreachableError):  # when the connection is closed or broken
            self._sock.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0 and self.receive(left):
                pass
        self.close()

    def reply(self, key: tuple[int, int], timeout: float) -> Frame | None:
        end = time.monotonic() + timeout
        while not self.replies.get(key):
            left = end - time.monotonic()
            if self.ended or left <= 0 or not self.receive(left):
                return None
        return self.replies[key].pop(0)

    def left_over(self) -> list[str]:
        """Return a difference for each reply that the capture lacks, only once."""
        found = [frame for frames in self.replies.values() for frame in frames]
        self.replies.clear()
        return [f"   -  a reply that the capture doesn't have: command {frame.command}" for frame in found]


def replay(capture: Capture, address: str, *, timeout: float = 5.0, ignore_identity: bool = False) -> Replayed:
    """Send the guest's records in the capture's order. Wait for each reply at its place in the capture, and compare.

    Where the capture has half a frame because the guest's connection ended, this connection ends too, and a new one
    replays the rest. `timeout` is seconds to wait for a reply. With `ignore_identity`, answers to questions of identity
    may have other content.

    Raises:
        UnreachableError: no daemon listens, or the connection ended.
    """
    result = Replayed()
    with closing(_Guest(address)) as guest:
        for line, record in enumerate(capture.records, start=2):
            _step(guest, line, record, result, timeout, ignore_identity)
        while not guest.ended and guest.receive(SETTLE):
            pass
        result.differences += guest.left_over()
    return result


def _step(guest: _Guest, line: int, record: Record, result: Replayed, timeout: float, ignore_identity: bool) -> None:
    if record.direction is Direction.TO_HOST:
        if isinstance(record, FrameRecord) and not record.refused and record.frame.is_response == 1:
            result.notes.append(f"line {line}: an answer to the host's own question is left out: it wasn't asked")
            return
        if guest.ended:
            result.differences += guest.left_over()
            guest.connect()
        guest.send(record.raw, timeout)
        if isinstance(record, SkippedRecord) and record.why is SkipReason.SILENCE:
            time.sleep(SILENCE)
        if isinstance(record, SkippedRecord) and record.why is SkipReason.CLOSED:
            guest.end(timeout)
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
    skipped = IDENTITY if ignore_identity and expected.command in IDENTITY_COMMANDS else frozenset()
    for each in fields_dict(Frame):
        a, b = getattr(expected, each), getattr(found, each)
        if a != b and each not in skipped:
            result.differences.append(f"{line:4}  {name} {each}: {quoted(a)} in the capture, {quoted(b)} served")
