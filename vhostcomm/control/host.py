"""What the control surface needs of the daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vchannel import Command, Response
from vhostcomm.channel.guest import Guest
from vhostcomm.config import Config

Listener = Callable[[Guest, str], None]


class Host(Protocol):
    """A daemon, as the control surface sees it."""

    listeners: list[Listener]
    """Called with every guest to which something happens, and what."""
    not_reloaded: str
    """Why the last reload was not taken; empty if it was."""

    @property
    def guests(self) -> dict[str, Guest]: ...

    @property
    def config(self) -> Config: ...

    async def call(
        self, name: str, command: Command, data: bytes = b"", *, timeout: float, by: str = ""
    ) -> Response: ...

    async def reload(self) -> bool: ...
