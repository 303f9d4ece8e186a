"""The interface for observers of a guest's frames."""

from __future__ import annotations

from typing import Protocol

from vchannel import Event


class Trace(Protocol):
    """Observes every frame of a guest; must neither wait nor raise."""

    def received(self, event: Event) -> None:
        """Observe an event of the guest."""

    def sent(self, raw: bytes) -> None:
        """Observe a frame sent to the guest."""
