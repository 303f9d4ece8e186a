"""One HTTP/1 connection: h11's states on a socket, and an ASGI application that answers one request at a time."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import AbstractContextManager, suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import unquote

import h11
import trio

from vhostcomm.channel.sockets import has_hung_up, peer
from vhostcomm.control.problems import Problem, internal_error
from vhostcomm.log.logs import Log

if TYPE_CHECKING:
    from vhostcomm.control.tls import TlsStream

HEAD_TIMEOUT: Final = 10.0
"""Seconds from the connection, or the last answer, to the end of a request's head."""

BODY_TIMEOUT: Final = 10.0
"""Seconds from the end of a request's head to the end of its body."""

SEND_TIMEOUT: Final = 10.0
"""Seconds that a client may leave an answer unread before its connection is closed."""

HEAD_LIMIT: Final = 16 << 10
"""Maximum bytes of a request's head."""

BODY_LIMIT: Final = 64 << 10
"""Maximum bytes of a request's body: many times the longest text in a frame."""

READ: Final = 16 << 10
READ_AHEAD: Final = 64 << 10
"""Bytes of one read, and maximum bytes of later requests to keep during an answer."""

LINGER: Final = 0.5
LINGER_LIMIT: Final = 1 << 20
"""Seconds and bytes for which a closing connection is still read. If a socket is closed with unread bytes, the kernel
discards the answer that it is sending."""

GONE_INTERVAL: Final = 0.1
"""Seconds between checks whether a client that no longer sends has disconnected. No event reports that."""

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application(Protocol):
    """An ASGI application with the functions that the server needs."""

    @property
    def headers(self) -> Collection[tuple[bytes, bytes]]:
        """Headers of every response."""

    def admit(self, scope: Scope) -> None:
        """Check a request by its head. The body of a rejected request isn't read.

        Raises:
            Problem: the request is rejected.
        """

    def is_urgent(self, scope: Scope) -> bool:
        """Return whether a request may use the reserved slots."""

    def error(self, problem: Problem) -> bytes:
        """Return the JSON body for a request that does not reach the application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class HttpConnection:
    """A client's connection.

    - The application gets a request when it is complete, and is cancelled when the client disconnects.
    - Even for an invalid request, the client gets an answer before the connection is closed.

    Args:
        stream: the connection; closed at the end.
        app: answers the requests.
        slot: entered during an answer; raises `Problem` if no slot is free.
        log: for the application's own errors.
        certificate: the name in the client's certificate; empty without TLS.
    """

    def __init__(
        self,
        stream: trio.SocketStream | TlsStream,
        app: Application,
        slot: Callable[[HttpConnection, bool], AbstractContextManager[None]],
        log: Log,
        certificate: str = "",
    ) -> None:
        self.admitted = False
        """Whether a request of this client has been admitted."""
        self.evicted = trio.CancelScope()
        """Ends the connection."""
        self._stream = stream
        self._socket = cast("socket.socket", stream.socket)
        self._app = app
        self._slot = slot
        self._log = log
        self._certificate = {"certificate": certificate} if certificate else {}
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._method = b""
        self._unsent = b""

    async def run(self) -> None:
        """Answer requests until the client disconnects, violates the protocol or exceeds a limit."""
        try:
            with self.evicted, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while await self._exchange():
                    self._http.start_next_cycle()
                with trio.move_on_after(LINGER):
                    await self._linger()
        finally:
            self._stream.socket.close()

    async def _exchange(self) -> bool:
        """Answer one request. Return whether another one may follow."""
        try:
            head = await self._head()
            if head is None:
                return False
            scope = self._scope(head)
            self._app.admit(scope)
            self.admitted = True
            body = await self._body()
            with self._slot(self, self._app.is_urgent(scope)):
                await self._answer(scope, body)
        except h11.RemoteProtocolError as error:
            # Omit the bytes that h11 repeats after its reason: they may contain the token.
            why = re.split("[:(]", str(error))[0].strip()
            await self._refuse(Problem(error.error_status_hint, "bad request", why, "send it as HTTP/1.1"))
        except Problem as problem:
            await self._refuse(problem)
        return self._http.our_state is h11.DONE

    # -- reading

    async def _head(self) -> h11.Request | None:
        """Read a request's head; return None if the client disconnects or never begins one."""
        with trio.move_on_after(HEAD_TIMEOUT):
            event = await self._event()
            return event if isinstance(event, h11.Request) else None
        if not self._http.trailing_data[0]:
            return None
        raise Problem(408, "timed out", f"the head was not complete within {HEAD_TIMEOUT:g} s", "send it at once")

    async def _body(self) -> bytes:
        body = b""
        with trio.move_on_after(BODY_TIMEOUT):
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT:
                    raise Problem(413, "bad request", f"the body has more than {BODY_LIMIT} bytes", "send less")
            return body
        raise Problem(408, "timed out", f"the body was not complete within {BODY_TIMEOUT:g} s", "send it at once")

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._send(h11.InformationalResponse(status_code=100, headers=[])))
            self._http.receive_data(await self._stream.receive_some(READ))
        return event

    def _scope(self, head: h11.Request) -> Scope:
        """Make ASGI's description of a request, without keys that have their defaults.

        Raises:
            Problem: its framing is ambiguous, or it isn't HTTP/1.
        """
        self._method = head.method
        if head.http_version not in {b"1.0", b"1.1"}:
            raise Problem(505, "bad request", f"HTTP/{head.http_version.decode()} is not served", "send HTTP/1.1")
        headers = list(head.headers)
        names = {name for name, _ in headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            # A proxy may use the other one, and read a part of the body as the next request (RFC 9112, 6.1).
            raise Problem(400, "bad request", "it has both Content-Length and Transfer-Encoding", "send one of them")
        target = head.target
        if absolute := _ABSOLUTE.fullmatch(target):
            # The target's host overrides the header (RFC 9112, 3.2.2).
            headers = [(b"host", absolute[1]), *(each for each in headers if each[0] != b"host")]
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.http_version.decode(),
            "method": head.method.decode(),
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": {"peer": peer(self._socket) | self._certificate},
        }

    async def _linger(self) -> None:
        await self._stream.send_eof()
        left = LINGER_LIMIT
        while left > 0 and (data := await self._stream.receive_some(READ)):
            left -= len(data)

    # -- answering

    async def _answer(self, scope: Scope, body: bytes) -> None:
        """Run the application until it has answered, or the client has disconnected."""
        async with trio.open_nursery() as nursery:
            running = nursery.cancel_scope
            request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive() -> Message:
                if not request:
                    await trio.sleep_forever()
                return request.pop()

            async def send(message: Message) -> None:
                try:
                    await self._forward(message)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    running.cancel()
                    await trio.sleep_forever()

            nursery.start_soon(self._watch, running)
            try:
                await self._app(scope, receive, send)
            except Exception:  # noqa: BLE001 - only this request fails, not the server
                self._log.exception("internal error in answering a request; please report it", path=scope["path"])
            running.cancel()
        if self._http.our_state is h11.SEND_RESPONSE:
            raise internal_error()

    async def _watch(self, running: trio.CancelScope) -> None:
        """Cancel the answer when the client disconnects. Data that arrives meanwhile is kept for the next request."""
        try:
            while len(self._http.trailing_data[0]) < READ_AHEAD:
                data = await self._stream.receive_some(READ)
                self._http.receive_data(data)
                if not data:
                    break
            # A client on a unix socket may have closed only its sending end; over TCP, both look the same.
            half = self._socket.family != socket.AF_UNIX
            while not has_hung_up(self._socket, half=half):  # noqa: ASYNC110 - no event reports it
                await trio.sleep(GONE_INTERVAL)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        running.cancel()

    async def _forward(self, message: Message) -> None:
        """Send the application's message. A head waits for the first part of the body, to be one write."""
        if message["type"] == "http.response.start":
            self._unsent = self._begin(message["status"], message.get("headers", ()))
            return
        out, self._unsent = self._unsent, b""
        if (body := message.get("body", b"")) and self._method != b"HEAD":
            out += self._send(h11.Data(data=body))
        if not message.get("more_body", False):
            out += self._send(h11.EndOfMessage())
        await self._write(out)

    async def _refuse(self, problem: Problem) -> None:
        """Answer a request that does not reach the application, and end the connection."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = self._app.error(problem)
        given = {name.lower().encode(): value.encode() for name, value in (problem.headers or {}).items()}
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *({b"content-type": b"application/json"} | given).items(),
        ]
        self._unsent = self._begin(problem.status, headers)
        await self._forward({"type": "http.response.body", "body": body})

    def _begin(self, status: int, headers: Any) -> bytes:
        date = (b"date", formatdate(usegmt=True).encode())
        reason = HTTPStatus(status).phrase.encode()
        return self._send(h11.Response(status_code=status, headers=[*headers, *self._app.headers, date], reason=reason))

    def _send(self, event: Any) -> bytes:
        return self._http.send(event) or b""

    async def _write(self, data: bytes) -> None:
        with trio.move_on_after(SEND_TIMEOUT) as sending:
            await self._stream.send_all(data)
        if sending.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read")
