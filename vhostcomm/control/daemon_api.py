"""The interface to the daemon that the control surface needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio
from attrs import frozen

from vchannel import Command, Response
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.recordings import Recordings
from vhostcomm.cluster.records import View
from vhostcomm.config.models import Config
from vhostcomm.guest.events import GuestEvent

NO_FILE: Final = "the daemon was started without --config"
"""Why there is nothing to reload."""

Listener = Callable[[Guest, GuestEvent], None]


class BalloonState(Protocol):
    """A guest's memory, in bytes."""

    @property
    def actual(self) -> int:
        """What it has now."""

    @property
    def memory(self) -> int:
        """What its machine was started with."""


class MachineApi(Protocol):
    """A running QEMU, by QMP. Each raises `MachineError`."""

    async def resume(self) -> bool:
        """Resume the machine; False if it runs already."""

    async def balloon(self, size: int | None) -> BalloonState:
        """Ask the guest to change its memory to `size` bytes; None only reads it."""


class SnippetApi(Protocol):
    """Text to paste elsewhere."""

    @property
    def text(self) -> str: ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user has to know."""


class LauncherApi(MachineApi, Protocol):
    """The owner of the guest's QEMU, in the daemon's process."""

    confirmed: trio.Event
    """Set when the guest has confirmed its power-off."""
    ended: trio.Event
    """Set when its QEMU has ended and is not started again."""

    def ask_to_stop(self, by: str) -> None:
        """Stop the guest in stages; a further call changes nothing."""

    @property
    def stage(self) -> str:
        """The current stage of a stop; empty without a stop."""

    @property
    def ending(self) -> tuple[str, int]:
        """The ending in words, and its exit status, once `ended` is set."""


@frozen
class Reloaded:
    """The outcome of a reload.

    Args:
        why_not: why the configuration was rejected, or for how many reasons; empty if the new one is active.
        reasons: each of several reasons.
        needs_restart: the names of changed settings that are not active before a restart.
    """

    why_not: str = ""
    reasons: Sequence[str] = ()
    needs_restart: tuple[str, ...] = ()


class DaemonApi(Protocol):
    """A daemon, as the control surface sees it."""

    launcher: LauncherApi | None
    """The owner of the QEMU; None if another program runs it."""
    listeners: list[Listener]
    """Called with every guest that has an event, and the event."""
    recordings: Recordings
    cluster: View | None
    """What the hosts of the cluster have published; None without a cluster."""

    @property
    def not_reloaded(self) -> str:
        """Why the last reload was rejected; empty if it was accepted."""

    @property
    def guests(self) -> dict[str, Guest]: ...

    def guest(self, name: str) -> Guest | None: ...

    @property
    def config(self) -> Config: ...

    async def ask_guest(
        self, guest: Guest, command: Command, data: bytes = b"", *, timeout: float, by: str
    ) -> Response:
        """Send a question to a guest; thaw a frozen one before a command that ends it. Raises `CallError`."""

    async def freeze(self, guest: Guest, seconds: float, *, timeout: float, by: str) -> Response: ...

    def probe(self, name: str, age: float) -> trio.Event | None: ...

    def machine(self, name: str) -> MachineApi: ...

    def snippets(self, name: str) -> Mapping[str, SnippetApi]:
        """Text to paste for a served guest, by the tool's name."""

    async def reload(self) -> Reloaded:
        """Read the configuration again and apply it, or reject it; `NO_FILE` if there is nothing to read."""

    def new_link(self, by: str) -> str | None: ...
