"""An HTTP server on bound sockets. Import it when the first client connects: it imports h11."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.connection import Application, HttpConnection
from vhostcomm.control.listener import HttpListener
from vhostcomm.control.problems import Problem
from vhostcomm.log.logs import Log

if TYPE_CHECKING:
    import ssl

    from vhostcomm.control.tls import TlsStream

CONNECTION_LIMIT: Final = 128
"""Maximum connections: those that clients leave open must not use up the guests' descriptors."""

RESERVED: Final = 16
"""Connections of these for urgent requests: a guest can be stopped while all others wait for an answer."""

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next attempt if there is no descriptor for a connection."""


class _Slots:
    """The open connections, in the order in which they started to wait for a request."""

    def __init__(self) -> None:
        self._open: dict[HttpConnection, None] = {}
        self._busy: set[HttpConnection] = set()

    def add(self, connection: HttpConnection) -> None:
        self._open[connection] = None

    def remove(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)

    @property
    def full(self) -> bool:
        return len(self._open) >= CONNECTION_LIMIT

    def evict(self) -> HttpConnection | None:
        """Close the connection that has waited longest for a complete request; never admitted clients first."""
        waiting = [each for each in self._open if each not in self._busy]
        oldest = next((each for each in waiting if not each.admitted), waiting[0] if waiting else None)
        if oldest:
            self.remove(oldest)
            oldest.evicted.cancel()
        return oldest

    @contextmanager
    def answering(self, connection: HttpConnection, urgent: bool) -> Iterator[None]:
        """Occupy a slot during an answer.

        Raises:
            Problem: too many requests are being answered.
            trio.ClosedResourceError: the connection was evicted. Its client gets no answer, so nothing may be done.
        """
        if connection.evicted.cancel_called:
            raise trio.ClosedResourceError
        if len(self._busy) >= CONNECTION_LIMIT - RESERVED and not urgent:
            why = f"{len(self._busy)} requests are being answered; only stops and thaws get through"
            raise Problem(503, "busy", why, "try again later", {"Retry-After": "1"})
        self._busy.add(connection)
        try:
            yield
        finally:
            self._busy.discard(connection)
            if connection in self._open:  # it waits for a request again
                self.remove(connection)
                self.add(connection)


async def serve_app(app: Application, listener: HttpListener, log: Log, client_log: ClientLog) -> None:
    """Serve an application until cancelled. A request's `scope["state"]["peer"]` identifies the client.

    A new connection replaces one that is idle or incomplete, so silent clients can't keep others out.

    Args:
        app: answers the requests.
        listener: bound by the caller, so that an invalid address is an error of the start; the caller closes it.
        log: for errors.
        client_log: for messages that clients cause.
    """
    slots = _Slots()
    handshakes = None
    if listener.tls:
        from vhostcomm.control.tls import Handshakes

        handshakes = Handshakes(client_log, app.error)

    async def handle(connection: HttpConnection) -> None:
        try:
            await connection.run()
        except Exception:
            log.exception("internal error, closing the control connection; please report it")
        finally:
            slots.remove(connection)

    def begin(stream: trio.SocketStream | TlsStream, certificate: str = "") -> None:
        if slots.full and not slots.evict():
            client_log.warning("control connection refused", why=f"{CONNECTION_LIMIT} requests are being answered")
            stream.socket.close()
            return
        connection = HttpConnection(stream, app, slots.answering, log, certificate)
        slots.add(connection)
        nursery.start_soon(handle, connection)

    async def begin_with_tls(stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        assert handshakes
        if tls := await handshakes.finish(stream, context):
            begin(tls, tls.client)

    async def accept(accepting: trio.SocketListener) -> None:
        while True:
            if handshakes:
                await handshakes.rested()
            try:
                stream = await accepting.accept()
            except OSError as error:
                client_log.warning("control connection waits", why=error.strerror)
                if not (handshakes and handshakes.evict()):
                    slots.evict()
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if listener.tls:
                nursery.start_soon(begin_with_tls, stream, listener.tls)
            else:
                begin(stream)

    async with trio.open_nursery() as nursery:
        while True:
            with trio.socket.from_stdlib_socket(listener.sock.dup()) as own, trio.CancelScope() as listener.accepting:
                await accept(trio.SocketListener(own))
