"""What happens to a guest, for those who follow it. Pure.

Import the module, not its classes: the evidence that leads to an event often has the same name.
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
    """Its machine runs again, or nobody knows of a pause any more."""


@frozen
class Rebooted:
    """The guest started again, or its machine was reset."""


@frozen
class Stopping:
    """A client asked it to power off or to reboot."""


@frozen
class Frozen:
    """A freeze of its file systems is sent."""


@frozen
class Thawed:
    """A thaw of its file systems was answered."""


@frozen
class Gone:
    """Its channel's connection ended.

    Args:
        why: for people.
        by_us: vhostcomm closed the connection, so its QEMU may well run on.
    """

    why: str
    by_us: bool = False


GuestEvent: TypeAlias = Connected | Ready | Silent | Paused | Resumed | Rebooted | Stopping | Frozen | Thawed | Gone
