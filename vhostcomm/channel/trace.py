"""What somebody else wants to see of a guest's frames."""

from __future__ import annotations

from typing import Protocol

from vchannel import Event


class Trace(Protocol):
    """Is shown every frame of a guest; must neither wait nor raise."""

    def received(self, event: Event) -> None:
        """The guest sent something."""

    def sent(self, raw: bytes) -> None:
        """A frame was sent to the guest."""
