"""The server's end of TLS. Import it only for a control surface with TLS: it imports ssl.

trio's SSLStream sends no alert when a handshake fails, so clients would not learn why, and it can't end only its sending end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from time import thread_time
from typing import Any, Final, TypeVar, cast

import trio

from vhostcomm.channel.sockets import peer
from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.problems import Problem
from vhostcomm.text import escape

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a client to show its certificate."""

HANDSHAKE_LIMIT: Final = 32
"""Maximum connections without a certificate yet. They need no slot, so they keep no client with a certificate out."""

CREDIT: Final = 0.02
"""Seconds of processor time that handshakes may use at once: about twenty."""

REST: Final = 19
"""Seconds of rest for each second of handshakes beyond the credit: they use at most a twentieth of the time."""

ACCEPT_COST: Final = 0.0002
"""Seconds of processor time that a connection counts as before its first byte: silent clients take no step."""

LINGER: Final = 0.5
"""Seconds for a rejected client to read why."""

_READ: Final = 16 << 10

T = TypeVar("T")

_PLAIN = "HTTP_REQUEST"
"""OpenSSL's reason for a request without TLS."""


class TlsStream:
    """A connection with TLS, after `handshake`. At most one task sends, and one receives."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = trio.Lock()
        self._ended = False

    @property
    def client(self) -> str:
        """The common name in the client's certificate."""
        subject = (self._tls.getpeercert() or {}).get("subject", ())
        names = dict(pair for each in cast("Any", subject) for pair in each)
        return escape(str(names.get("commonName", "")))

    async def handshake(self, share: Share) -> None:
        """Wait for the client's certificate. `share` limits the steps.

        Raises:
            ssl.SSLError: there is none, or it is not valid. The client was sent the reason.
            trio.BrokenResourceError: the client has disconnected.
        """
        await self._received(self._tls.do_handshake, share=share)
        await self._flush()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Receive at most some bytes; none at the end. After `send_eof`, they are encrypted.

        Raises:
            trio.BrokenResourceError: the connection failed.
        """
        if self._ended:
            return bytes(await self._stream.receive_some(max_bytes))
        try:
            # Nothing may be awaited after this: the caller may be cancelled, and the bytes would be lost.
            return cast("bytes", await self._received(self._tls.read, max_bytes))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            trio.BrokenResourceError: the connection failed.
        """
        if not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        await self._flush()

    async def send_eof(self) -> None:
        """End the sending end.

        Raises:
            trio.BrokenResourceError: the connection failed.
        """
        self._ended = True
        with suppress(ssl.SSLError):  # it waits for the client's end, or the handshake has failed
            self._tls.unwrap()
        await self._flush()
        await self._stream.send_eof()

    async def _received(self, step: Callable[..., Any], *args: object, share: Share | None = None) -> Any:
        """Take a step, as soon as the client has sent what it needs."""
        if share:  # without the client's first bytes, a step would be wasted
            await self._receive()
        while True:
            try:
                return await share.take(step) if share else step(*args)
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    await self._flush()
            except ssl.SSLError as error:
                if error.reason != _PLAIN:
                    await self._flush()
                raise
            await self._receive()

    async def _receive(self) -> None:
        if data := await self._stream.receive_some(_READ):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._outgoing.read():
                await self._stream.send_all(data)


class Share:
    """Limits the processor time of handshakes, and takes one step of them at a time."""

    def __init__(self) -> None:
        self._lock = trio.StrictFIFOLock()
        self._limiter = trio.CapacityLimiter(1)
        """Of the thread. Abandoned threads of other tasks may occupy trio's default limiter."""
        self._full_at = 0.0
        """When the credit is whole again, by trio's clock."""

    async def rested(self) -> None:
        """Wait until the pending steps are done and there is credit."""
        async with self._lock:
            await self._rested()

    async def _rested(self) -> None:
        await trio.sleep_until(self._full_at - CREDIT * (1 + REST))

    def charge(self, work: float) -> None:
        """Have handshakes rest for this work, in seconds of processor time."""
        self._full_at = max(self._full_at, trio.current_time()) + work * (1 + REST)

    async def take(self, step: Callable[[], T]) -> T:
        """Take a step when there is credit, in a thread: OpenSSL lets the event loop run meanwhile."""
        work = 0.0

        def timed() -> T:
            nonlocal work
            began = thread_time()
            try:
                return step()
            finally:
                work = thread_time() - began

        async with self._lock:
            await self._rested()
            try:
                return await trio.to_thread.run_sync(timed, limiter=self._limiter)
            except RuntimeError:  # no thread can be started
                return timed()
            finally:
                self.charge(work)


class Handshakes:
    """The connections whose clients have not shown a certificate yet.

    Args:
        client_log: logs clients without a valid certificate.
        plain: makes the body of the answer to a request without TLS.
    """

    def __init__(self, client_log: ClientLog, plain: Callable[[Problem], bytes]) -> None:
        self._client_log = client_log
        self._plain = plain
        self._unfinished: dict[trio.CancelScope, None] = {}
        self._share = Share()

    async def rested(self) -> None:
        """Wait until there is time for another handshake. Clients wait in the kernel meanwhile, in their order.

        Accepting a client while steps are pending could evict a client that only waits for its step.
        """
        await self._share.rested()

    def evict(self) -> bool:
        """Close the oldest connection. Return whether there was one."""
        for oldest in self._unfinished:
            del self._unfinished[oldest]
            oldest.cancel()
            return True
        return False

    async def finish(self, stream: trio.SocketStream, context: ssl.SSLContext) -> TlsStream | None:
        """Return the stream with TLS. If the client shows no valid certificate, close it and return None."""
        if len(self._unfinished) >= HANDSHAKE_LIMIT:
            self.evict()
        self._share.charge(ACCEPT_COST)
        tls, is_done = TlsStream(stream, context), False
        try:
            with trio.CancelScope() as scope:
                self._unfinished[scope] = None
                is_done = await self._try(tls, stream)
        finally:
            self._unfinished.pop(scope, None)
            if not is_done:
                stream.socket.close()
        return tls if is_done else None

    async def _try(self, tls: TlsStream, stream: trio.SocketStream) -> bool:
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                await tls.handshake(self._share)
        except ssl.SSLError as error:
            await self._refuse(tls, stream, error)
        except trio.TooSlowError:
            self._log(stream, f"no certificate within {HANDSHAKE_TIMEOUT:g} s")
        except trio.BrokenResourceError:
            pass
        else:
            return True
        return False

    async def _refuse(self, tls: TlsStream, stream: trio.SocketStream, error: ssl.SSLError) -> None:
        """Log why, and wait until the client has read it."""
        with suppress(trio.BrokenResourceError), trio.move_on_after(LINGER):
            if error.reason == _PLAIN:
                self._log(stream, "a request without TLS")
                await stream.send_all(self._plain_answer())
                await stream.send_eof()
            else:
                if not isinstance(error, ssl.SSLEOFError):
                    self._log(stream, _why(error))
                await tls.send_eof()
            while await stream.receive_some(_READ):
                pass

    def _plain_answer(self) -> bytes:
        why, remedy = "this port speaks TLS, and only with a certificate", "ask as tls:HOST:PORT, or https://HOST:PORT"
        body = self._plain(Problem(400, "bad request", why, remedy))
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body

    def _log(self, stream: trio.SocketStream, why: str) -> None:
        by = peer(cast("socket.socket", stream.socket)).get("peer", "")
        self._client_log.warning("control connection without a valid certificate", why=why, by=by)


def _why(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    reason = error.reason or str(error)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client has none"
    _, _, alert = reason.partition("ALERT_")
    if alert:
        return f"the client rejects the daemon's certificate: {alert.replace('_', ' ').lower()}"
    return reason.replace("_", " ").lower()
