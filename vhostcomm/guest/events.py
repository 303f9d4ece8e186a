"""The events of a guest, for its observers. Pure.

Import the module, not its classes: the evidence for an event often has the same name. Clients of the control surface
know the events by the names of these classes.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen


@frozen
class Connected:
    """QEMU connected its channel."""


@frozen
class Ready:
    """The guest asked or answered something."""


@frozen
class Silent:
    """The guest did not answer the harmless question."""


@frozen
class Paused:
    """QEMU paused its machine."""


@frozen
class Resumed:
    """Its machine runs again, or a pause is no longer known."""


@frozen
class Rebooted:
    """The guest started again, or its machine was reset."""


@frozen
class Stopping:
    """A client requested a power-off or a reboot."""


@frozen
class Frozen:
    """A freeze of its file systems was sent."""


@frozen
class Thawed:
    """A thaw of its file systems was answered."""


@frozen
class Gone:
    """The connection of its channel ended.

    Args:
        why: for people.
        by_us: vhostcomm closed the connection, so its QEMU may still run.
    """

    why: str
    by_us: bool = False


GuestEvent: TypeAlias = Connected | Ready | Silent | Paused | Resumed | Rebooted | Stopping | Frozen | Thawed | Gone
