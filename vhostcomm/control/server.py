"""An HTTP application on sockets that are bound already. Import it when there is a client: it brings all of hypercorn."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from vhostcomm.channel.sockets import has_hung_up, peer
from vhostcomm.control.reading import Reading
from vhostcomm.logs import Log

SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds that requests in flight get at the end."""

SEND_TIMEOUT: Final = 10.0
"""Seconds that a client may leave an answer unread before its connection is closed."""

CONNECTION_LIMIT: Final = 128
"""Connections at once. More are closed at once: what a client leaves open must not cost the guests their descriptors."""

LINGER: Final = 0.5
LINGER_MOST: Final = 1 << 20
"""Seconds and bytes for what a client still sends as its connection is closed: a kernel that closes with bytes unread throws away
the answer that is on its way, too."""

GONE_LOOK: Final = 0.1
"""Seconds between looks whether a client that sends no more is gone."""

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next try where there is no descriptor for a connection."""


def peer_of(scope: Any) -> str:
    """Who is connected, as the kernel tells it; empty where it doesn't."""
    return " ".join(f"{key} {value}" for key, value in scope.get("state", {}).get("peer", {}).items())


class ClientStream:
    """A connection whose client has to read: hypercorn shields its sends from every deadline of ours."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.send_eof = stream.send_eof
        self._closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive. The end comes when the client is gone, not when it has only sent all it will.

        Of a TCP connection both look the same, and count as gone.
        """
        data = await self._stream.receive_some(max_bytes)
        if not data and self.socket.family == socket.AF_UNIX:
            while not self._closed and not has_hung_up(cast("socket.socket", self.socket), half=False):  # noqa: ASYNC110 - no event tells which
                await trio.sleep(GONE_LOOK)
        return data

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(SEND_TIMEOUT) as sending:
            await self._stream.send_all(data)
        if sending.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read")

    async def aclose(self) -> None:
        """Close, with the answer that is on its way let through to a client that still sends."""
        try:
            was_closed, self._closed = self._closed, True
            if not was_closed:
                with trio.move_on_after(LINGER):
                    await self._read_the_rest()
        finally:
            await self._stream.aclose()

    async def _read_the_rest(self) -> None:
        left = LINGER_MOST
        # Busy is a connection that is closed for its silence, while it is being read.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            while left > 0 and (data := await self._stream.receive_some(65536)):
                left -= len(data)


class _Server(TCPServer):
    """Hypercorn's, for HTTP/1 alone, and without the seconds that a connection lives on when its client is gone.

    Its HTTP/2 waits for a client's window without an end.
    """

    async def _read_data(self) -> None:
        self.protocol.protocol._check_protocol = _stay  # type: ignore[method-assign,union-attr]  # noqa: SLF001
        await super()._read_data()
        await self.idle_task.stop()


async def _stay(_: object) -> None:
    """Take no offer of another protocol."""


async def serve_app(
    app: Any,
    listeners: Sequence[socket.socket],
    log: Log,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until cancelled. A request's `scope["state"]["peer"]` says who is connected.

    The listeners stay the caller's: they are bound before, so that a bad address is told at once,
    and closed after. Hypercorn's own accept loop isn't used: it ends with the first handler that raises, and can't be stopped
    while a client doesn't read.
    """
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    wrapped = wrap_app(cast("Any", Reading(app)), config.wsgi_max_body_size, "asgi")
    context = WorkerContext(None)
    open_sockets: set[trio.socket.SocketType] = set()

    async def handle(stream: ClientStream) -> None:
        try:
            state = ConnectionState({"peer": peer(stream.socket)})  # type: ignore[arg-type]
            await _Server(wrapped, config, context, state, stream)  # type: ignore[arg-type]
        except Exception:
            log.exception("internal error, the control connection is closed; please report it")
        finally:
            open_sockets.discard(stream.socket)
            stream.socket.close()

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                log.error("can't take the control connection, it waits", why=error.strerror)  # noqa: TRY400
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if len(open_sockets) >= CONNECTION_LIMIT:
                stream.socket.close()
                log.warning("control connection refused", why=f"{CONNECTION_LIMIT} are open")
                continue
            open_sockets.add(stream.socket)
            nursery.start_soon(handle, ClientStream(stream))

    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as accepting:
                for each in listeners:
                    accepting.start_soon(accept, trio.SocketListener(trio.socket.from_stdlib_socket(each.dup())))
                task_status.started()
        finally:
            # Shielded sends heed no cancellation, and a closed socket.
            for sock in open_sockets:
                sock.close()
