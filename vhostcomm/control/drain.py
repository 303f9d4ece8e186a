"""Requests read to their end before they are answered."""

from __future__ import annotations

from typing import Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED: Final = 1 << 20
"""Bytes of a body that nobody wants, which are read all the same."""

PATIENCE: Final = 1.0
"""Seconds to read them."""


class Drained:
    """An application whose answers wait for the request's end.

    Hypercorn closes a connection without a word if its answer is done before the request is, and a client that
    uses it again meets a reset.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = scope["type"] != "http"

        async def receiving() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                size = 0
                with trio.move_on_after(PATIENCE):
                    while not ended and size <= DRAINED:
                        size += len((await receiving()).get("body", b""))
                if not ended:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receiving, sending)
