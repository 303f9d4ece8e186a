"""The events of a guest, for its observers. Pure."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class GuestEvent(Enum):
    """An event of a guest; the value is its name for the clients of the control surface."""

    CONNECTED = "connected"
    """QEMU connected its channel."""
    READY = "ready"
    """The guest asked or answered something."""
    SILENT = "silent"
    """The guest did not answer the harmless question."""
    PAUSED = "paused"
    """QEMU paused its machine."""
    RESUMED = "resumed"
    """Its machine runs again, or a pause is no longer known."""
    REBOOTED = "rebooted"
    """The guest started again, or its machine was reset."""
    STOPPING = "stopping"
    """A client requested a power-off or a reboot."""
    FROZEN = "frozen"
    """A freeze of its file systems was sent."""
    THAWED = "thawed"
    """A thaw of its file systems was answered."""
    GONE = "gone"
    """The connection of its channel ended; `Guest.last_end` is how."""


@frozen
class Gone:
    """How the connection of a guest's channel ended.

    Args:
        why: for people.
        by_us: vhostcomm closed the connection, so its QEMU may still run.
    """

    why: str
    by_us: bool = False
