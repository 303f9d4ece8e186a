"""Calls of a host to its guest, and their outcomes."""

from __future__ import annotations

from enum import Enum
from typing import Final

from vchannel import NO_NUL, Command, GuestCommand, Response
from vhostcomm.errors import VhostcommError

TIMEOUT_MAX: Final = 3600.0
"""Maximum seconds in a request: no call waits for ever."""

FREEZE: Final = 30.0
"""Seconds after which a guest is thawed if its client gives no time."""

OUTSTANDING_LIMIT: Final = 16
"""Maximum ordinary calls that wait for one guest, and as many urgent ones: unanswered calls must not pile up."""

URGENT: Final[frozenset[Command]] = frozenset({GuestCommand.POWEROFF, GuestCommand.REBOOT, GuestCommand.FS_UNFREEZE})
"""Calls with their own limit: hanging ordinary calls must not keep a guest from being stopped or thawed."""


class Outcome(Enum):
    """Why a call has no answer."""

    NOT_CONNECTED = "not connected"
    """QEMU isn't connected; nothing was sent, and nothing is kept for later."""
    NOT_READY = "not ready"
    """The guest gave no recent sign of life, or none since its boot. At most the harmless question was sent, which QEMU
    may keep for the next boot; nothing harmful was sent."""
    PAUSED = "paused"
    """The machine is paused, so nothing was sent; the guest would get it when the machine is resumed."""
    STOPPING = "stopping"
    """The daemon is stopping and rejects freezes; nothing was sent."""
    BUSY = "busy"
    """Too many calls already wait for this guest."""
    TIMED_OUT = "timed out"
    """It was sent, or could not even be sent, but no answer arrived in time."""
    LOST = "connection lost"
    """The connection ended before the answer."""


def outcome_of(response: Response) -> str:
    """Return the outcome of a call with an answer: answered, empty, or unreadable if the data has another type."""
    if not response.data:
        return "empty"
    return "unreadable" if response.problem and response.problem.why != NO_NUL else "answered"


def by_number(number: int) -> Command:
    """Return the command with a number, or the number of an unknown one."""
    try:
        return GuestCommand(number)
    except ValueError:
        return number


def named(command: Command) -> str:
    """Name a command in a sentence."""
    return command.name.lower() if isinstance(command, GuestCommand) else f"command {int(command)}"


class CallError(VhostcommError):
    """A call without an answer. `outcome` is the reason, `command` the question."""

    def __init__(self, command: Command, outcome: Outcome, why: str) -> None:
        self.command = command
        self.outcome = outcome
        super().__init__(why)
