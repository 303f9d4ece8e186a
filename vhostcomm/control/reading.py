"""Requests read to their end before they are answered, and given up when their client goes."""

from __future__ import annotations

from typing import Any, Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT: Final = 64 << 10
"""Bytes of a request's body: the longest text a frame carries, many times over."""

READ_MOST: Final = 1 << 20
"""Bytes of a body that nobody wants, which are read all the same."""

PATIENCE: Final = 1.0
"""Seconds to read them."""


SEND_TIMEOUT: Final = 15.0
"""Seconds for one piece of an answer: more than its connection has."""


class Reading:
    """An application whose requests are read for it, by one reader each.

    - Its answers wait for the request's end: hypercorn closes a connection without a word if the answer is done before
      the request is, and a client that uses it again meets a reset.
    - It is cancelled when its client goes: nobody waits for the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with trio.open_nursery() as nursery:
            request = _Request(receive, send, nursery.cancel_scope)
            nursery.start_soon(request.read)
            await self._app(scope, request.receive, request.send)
            nursery.cancel_scope.cancel()


class _Request:
    def __init__(self, receive: Receive, send: Send, wanted: trio.CancelScope) -> None:
        self._receive = receive
        self._send = send
        self._wanted = wanted
        self._ended = trio.Event()
        # What is more than the limit is counted, not kept, so that this is bounded.
        self._put, self._parts = trio.open_memory_channel[Message](float("inf"))

    async def read(self) -> None:
        """Read the request, then wait for its client to go."""
        size = 0
        while size <= READ_MOST:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._wanted.cancel()
                return
            kept = size <= BODY_LIMIT
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if kept or not more:
                self._put.send_nowait(message if kept else {**message, "body": b""})
            if not more:
                self._ended.set()

    async def receive(self) -> Message:
        return await self._parts.receive()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start" and not self._ended.is_set():
            with trio.move_on_after(PATIENCE):
                await self._ended.wait()
            if not self._ended.is_set():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        # The end of an answer is a disconnect, too: it must not find hypercorn halfway through it.
        with trio.move_on_after(SEND_TIMEOUT, shield=True) as sending:
            await self._send(message)
        if sending.cancelled_caught:
            self._wanted.cancel()
