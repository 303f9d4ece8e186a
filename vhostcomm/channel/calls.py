"""What a host asks its guest, and how it can end."""

from __future__ import annotations

from enum import Enum
from typing import Final

from vchannel import NO_NUL, Command, GuestCommand, Response
from vhostcomm.errors import VhostcommError

OUTSTANDING_LIMIT: Final = 16
"""Ordinary calls that may wait for one guest, and urgent ones beside them: unanswered calls must not pile up."""

URGENT: Final[frozenset[Command]] = frozenset({GuestCommand.POWEROFF, GuestCommand.REBOOT, GuestCommand.FS_UNFREEZE})
"""Calls with places of their own: ordinary calls that hang must not keep a guest from being stopped or thawed."""


class Outcome(Enum):
    """Why a call got no answer."""

    NOT_CONNECTED = "not connected"
    """QEMU isn't there; nothing was sent, and nothing is kept for later."""
    NOT_READY = "not ready"
    """The guest gave no sign of life since its boot, or none lately. At most the harmless question was sent, which QEMU may keep
    for the next boot; what could do harm was not."""
    PAUSED = "paused"
    """The machine is paused; nothing was sent: it would be carried out when the machine runs again."""
    STOPPING = "stopping"
    """The daemon stops, and freezes no guest any more; nothing was sent."""
    BUSY = "busy"
    """Too many calls wait for this guest already."""
    TIMED_OUT = "timed out"
    """It was sent, or could not even be sent, and no answer came in time."""
    LOST = "connection lost"
    """The connection ended before the answer."""


def outcome_of(response: Response) -> str:
    """How a call with an answer has ended: answered, empty, or unreadable, where the data isn't what its command carries."""
    if not response.data:
        return "empty"
    return "unreadable" if response.problem and response.problem.why != NO_NUL else "answered"


def named(command: Command) -> str:
    """A question in a sentence."""
    return command.name.lower() if isinstance(command, GuestCommand) else f"command {int(command)}"


class CallError(VhostcommError):
    """A call that got no answer. `outcome` says why, `command` what was asked."""

    def __init__(self, command: Command, outcome: Outcome, why: str) -> None:
        self.command = command
        self.outcome = outcome
        super().__init__(why)
