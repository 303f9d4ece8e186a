"""An HTTP application on sockets that are bound already."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

import trio

SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds that requests in flight get at the end."""

READ_TIMEOUT: Final = 30
"""Seconds that a client may take to send a request."""


async def serve_app(
    app: Any, listeners: Sequence[socket.socket], *, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an ASGI application until cancelled.

    The listeners stay the caller's: they are bound before, so that a bad address is told at once,
    and closed after. Hypercorn is imported here, so that its import doesn't delay the guests.

    Args:
        app: the application.
        listeners: listening sockets, unix or TCP.
    """
    from hypercorn.config import Config  # noqa: PLC0415
    from hypercorn.trio import serve  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{listener.fileno()}" for listener in listeners]
    config.graceful_timeout = SHUTDOWN_TIMEOUT
    config.read_timeout = READ_TIMEOUT
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    await serve(app, config, task_status=task_status, mode="asgi")
