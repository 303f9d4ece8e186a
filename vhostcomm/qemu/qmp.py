"""QMP, QEMU's machine protocol: lines of JSON over a stream.

QemuError
└── QmpError             the peer violates QMP
    ├── QmpCommandError  QEMU refused a command: its class and description
    ├── QmpTimeoutError  no answer in time: QEMU hangs or is stopped
    └── QmpClosedError   the connection is closed, usually because QEMU ended
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import trio
from attrs import define, field, frozen

from vhostcomm.errors import QemuError
from vhostcomm.linux import threads

LINE_LIMIT: Final = 1 << 20
"""Maximum bytes of one message. The largest answer used here (all options of QEMU 11) has 20 KiB."""

EVENT_BUFFER: Final = 256
"""Events that wait for their reader. Further events are dropped, so that replies keep arriving."""

ANSWER_TIMEOUT: Final = 5.0
"""Seconds to wait for a reply. QEMU replies within milliseconds, unless its main loop hangs."""

_CHUNK: Final = 1 << 16


class QmpError(QemuError):
    """The peer violates QMP."""


class QmpCommandError(QmpError):
    """QEMU rejected a command, for a reason that it describes."""


class QmpTimeoutError(QmpError):
    """QEMU did not answer in time."""


class QmpClosedError(QmpError):
    """The connection is closed."""


@frozen
class QmpEvent:
    """A QMP event.

    Args:
        name: such as ``SHUTDOWN``.
        data: as documented by QEMU.
    """

    name: str
    data: dict[str, Any]


@define(eq=False)
class _Call:
    """A command that waits for its reply; `reply` stays None if the connection closes first."""

    done: trio.Event = field(factory=trio.Event)
    reply: dict[str, Any] | None = None


class Qmp:
    """One connection to QEMU; ``await nursery.start(qmp.run)`` makes it usable.

    Args:
        stream: connected. `run` closes it.
        greeting_timeout: seconds for the greeting and the negotiation. QEMU answers once it has built the machine,
            which takes long with much preallocated memory. A second client of a socket gets no greeting until the
            first leaves.
    """

    def __init__(self, stream: trio.abc.Stream, *, greeting_timeout: float = ANSWER_TIMEOUT) -> None:
        self._stream = stream
        self._greeting_timeout = greeting_timeout
        self._buffer = bytearray()
        self._sending = trio.Lock()
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self.closed_because = "run() was not started: await nursery.start(qmp.run)"
        """Why commands can't be sent; "" if they can."""
        self._events_in, self.events = trio.open_memory_channel[QmpEvent](EVENT_BUFFER)
        """The events, until the connection ends."""
        self.version = ""
        """QEMU's own version, with the distribution's in parentheses."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Negotiate, then read until the stream ends. Started once commands can be sent.

        Raises:
            QmpError: the greeting is missing, late or invalid. Once started, `run` does not raise it; `execute` does.
        """
        try:
            await self._negotiate()
            self.closed_because = ""
            task_status.started()
            with suppress(QmpError):
                while True:
                    message = await self._receive()
                    # Hundreds of events can arrive in one read. Two checkpoints certainly give their reader a turn.
                    for _ in range(2):
                        if self._events_in.statistics().current_buffer_used == EVENT_BUFFER:
                            await trio.lowlevel.checkpoint()
                    self._dispatch(message)
        finally:
            self.closed_because = self.closed_because or "its reader was cancelled"
            self._events_in.close()
            for call in self._calls.values():
                call.done.set()
            await trio.aclose_forcefully(self._stream)

    async def execute(self, command: str, /, **arguments: Any) -> Any:
        """Execute a QMP command. Return the value of ``return`` in the reply, usually a dict or a list.

        Raises:
            QmpCommandError: QEMU rejected the command.
            QmpTimeoutError: no reply within the timeout; a late one is ignored.
            QmpClosedError: the connection is closed, or closed meanwhile.
        """
        if self.closed_because:
            raise QmpClosedError(f"QMP {command}: {self.closed_because}")
        self._last_id = number = self._last_id + 1
        self._calls[number] = call = _Call()
        try:
            with trio.move_on_after(ANSWER_TIMEOUT) as scope:
                await self._send({"execute": command, "arguments": arguments, "id": number})
                await call.done.wait()
        finally:
            del self._calls[number]
        if scope.cancelled_caught:
            raise QmpTimeoutError(f"QMP {command}: no reply within {ANSWER_TIMEOUT:g} s; QEMU hangs or is stopped")
        if call.reply is None:
            raise QmpClosedError(f"QMP {command}: {self.closed_because}")
        return _returned(command, call.reply)

    async def _negotiate(self) -> None:
        with trio.move_on_after(self._greeting_timeout) as scope:
            greeting = (await self._receive()).get("QMP")
            if not isinstance(greeting, dict):
                self._close("what came first is not QMP's greeting")
            self.version = _version(greeting)
            await self._send({"execute": "qmp_capabilities", "id": 0})
            while (reply := await self._receive()).get("id") != 0:
                pass
            _returned("qmp_capabilities", reply)
        if scope.cancelled_caught:
            raise QmpTimeoutError(
                f"no QMP greeting within {self._greeting_timeout:g} s; QEMU hangs, or already has another QMP client"
            )

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(json.dumps(message).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise QmpClosedError(self.closed_because or "QEMU closed the QMP connection") from None
            except trio.Cancelled:
                # Part of the command may have been sent; QEMU would parse the next one as its rest.
                self.closed_because = "a command was cancelled while it was being sent"
                await trio.aclose_forcefully(self._stream)
                raise

    async def _receive(self) -> dict[str, Any]:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > LINE_LIMIT:
                self._close(f"a message of more than {LINE_LIMIT} bytes from QEMU")
            try:
                piece = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                piece = b""
            if not piece:
                self._close("QEMU closed the QMP connection")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._close(f"not a message of QMP: {line[:60]!a}")
        return message

    def _close(self, why: str) -> NoReturn:
        self.closed_because = self.closed_because or why
        raise QmpClosedError(why)

    def _dispatch(self, message: dict[str, Any]) -> None:
        name = message.get("event")
        if isinstance(name, str):
            data = message.get("data")
            event = QmpEvent(name, data if isinstance(data, dict) else {})
            with suppress(trio.WouldBlock, trio.BrokenResourceError):
                self._events_in.send_nowait(event)
            return
        number = message.get("id")
        # A bool is an int too, and True equals 1.
        call = self._calls.get(number) if type(number) is int else None
        if call is not None:
            call.reply = message
            call.done.set()


async def connect(path: str) -> trio.SocketStream:
    """Connect to QEMU's QMP socket.

    Raises:
        QmpError: no QEMU listens there.
    """
    try:
        sock = await threads.connect(Path(path))
    except OSError as error:
        raise QmpError(f"{path}: {error.strerror}; no QEMU listens there for QMP") from None
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def _returned(command: str, reply: dict[str, Any]) -> Any:
    if "return" in reply:
        return reply["return"]
    error = reply.get("error")
    error = error if isinstance(error, dict) else {}
    raise QmpCommandError(f"QMP {command}: {error.get('desc', 'no description')} ({error.get('class', '?')})")


def _version(greeting: dict[str, Any]) -> str:
    try:
        version = greeting["version"]
        numbers = version["qemu"]
        text = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
        return f"{text} ({version['package']})" if version["package"] else text
    except (KeyError, TypeError):
        return "?"
