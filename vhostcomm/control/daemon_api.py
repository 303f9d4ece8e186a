"""The interface to the daemon that the control surface needs."""

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
    """The owner of the guest's QEMU, in the daemon's process."""

    confirmed: trio.Event
    """Set when the guest has confirmed its power-off."""
    ended: trio.Event
    """Set when its QEMU has ended and is not started again."""

    def ask_to_stop(self, by: str) -> None:
        """Stop the guest in stages; a further call changes nothing."""

    async def resume(self, by: str) -> bool:
        """Resume its machine; return False if it already runs. Raises `ResumeError`."""

    @property
    def stage(self) -> str:
        """The current stage of a stop; empty without a stop."""

    @property
    def ending(self) -> tuple[str, int]:
        """The ending in words, and its exit status, once `ended` is set."""


class DaemonApi(Protocol):
    """A daemon, as the control surface sees it."""

    launcher: LauncherApi | None
    """The owner of the QEMU; None if another program runs it."""
    listeners: list[Listener]
    """Called with every guest that has an event, and the event."""

    @property
    def not_reloaded(self) -> str:
        """Why the last reload was rejected; empty if it was accepted."""

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
