"""What the control surface needs of the daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from vchannel import Command, Response
from vhostcomm.channel.guest import Guest
from vhostcomm.config.models import Config
from vhostcomm.guest.events import GuestEvent

Listener = Callable[[Guest, GuestEvent], None]


class LauncherApi(Protocol):
    """Who runs the QEMU of the daemon's one guest, in the same process."""

    confirmed: trio.Event
    """Set when the guest has answered that it powers itself off."""
    ended: trio.Event
    """Set when its QEMU is gone for good."""

    def ask_to_stop(self, by: str) -> None:
        """Stop the guest, one stage after the other; nothing more where it is being stopped already."""

    async def resume(self, by: str) -> bool:
        """Have its machine run again; False if it runs already. Raises `ResumeError`."""

    @property
    def stage(self) -> str:
        """What it is being stopped by now; empty when it isn't."""

    @property
    def ending(self) -> tuple[str, int]:
        """How it ended, in words, and the exit status that tells so. Once `ended` is set."""


class DaemonApi(Protocol):
    """A daemon, as the control surface sees it."""

    launcher: LauncherApi | None
    """Who runs the QEMU; None where something else does."""
    listeners: list[Listener]
    """Called with every guest to which something happens, and what."""

    @property
    def not_reloaded(self) -> str:
        """Why the last reload was rejected; empty if it wasn't."""

    @property
    def guests(self) -> dict[str, Guest]: ...

    @property
    def config(self) -> Config: ...

    async def call(
        self, name: str, command: Command, data: bytes = b"", *, timeout: float, by: str = ""
    ) -> Response: ...

    async def freeze(self, name: str, seconds: float, *, timeout: float, by: str) -> Response: ...

    def probe(self, name: str, age: float) -> trio.Event | None: ...

    async def resume(self, name: str, by: str) -> bool: ...

    async def reload(self) -> str: ...
