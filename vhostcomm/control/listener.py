"""The listening socket of an HTTP server, which is created again if its file is deleted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from vhostcomm.channel.sockets import Listener
from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.linux.threads import in_thread

if TYPE_CHECKING:
    import ssl

BACKLOG: Final = 128
"""Clients that may wait: scripts often start many at once, and the first one waits for the imports."""


class HttpListener(Listener):
    """A listener for HTTP that can be bound again while it is served."""

    def __init__(self, address: Listen | ListenTcp, mode: int = 0o600, group: int = -1) -> None:
        super().__init__(address, mode, group)
        self.tls: ssl.SSLContext | None = None
        """Of connections that are accepted from now on; None for no TLS."""
        self.accepting = trio.CancelScope()
        """The accepting of connections, which is cancelled when another socket replaces `sock`."""
        self.sock.listen(BACKLOG)

    @property
    def path(self) -> Path | None:
        """The path of a unix socket."""
        return self.address.path if isinstance(self.address, Listen) else None

    def is_occupied(self) -> bool:
        """Return whether anything exists at the path of its socket. May block."""
        return self.path is not None and os.path.lexists(self.path)

    async def bind_again(self) -> None:
        """Create the socket again after its file was deleted. Open connections stay.

        Raises:
            ServeError: it can't be created.
        """
        assert self.path
        old = await in_thread(self.path.parent, self.replace)
        self.sock.listen(BACKLOG)
        trio.lowlevel.notify_closing(old)
        old.close()
        self.accepting.cancel()
