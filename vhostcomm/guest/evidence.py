"""The evidence of what a guest does, which is the only input of its model."""

from __future__ import annotations

from attrs import frozen


@frozen
class Moment:
    """A time on two clocks.

    Args:
        at: seconds on a monotonic clock, which every decision uses.
        wall: seconds since 1970, only to show; this clock may be set at any time.
    """

    at: float
    wall: float


@frozen
class Connected:
    """QEMU connected to the guest's channel."""

    connection: int


@frozen
class OfConnection:
    """Evidence from a connection of the guest's channel, with its number; that of an earlier connection is ignored."""

    connection: int


@frozen
class Disconnected(OfConnection):
    """The connection ended."""


@frozen
class Frame(OfConnection):
    """The guest sent a request itself; `asks` is True if it needs an answer."""

    asks: bool = False


@frozen
class Booted(OfConnection):
    """The guest reported that it starts (its command 3)."""


@frozen
class Answer(OfConnection):
    """The guest answered a question. A late answer proves as much as one in time."""


@frozen
class ProbeSent(OfConnection):
    """The harmless question was sent, to find out whether the guest is up."""


@frozen
class Silence(OfConnection):
    """The guest neither answered the harmless question in time nor sent anything else meanwhile."""


@frozen
class Reset:
    """QMP reported a reset of the machine."""


@frozen
class Paused:
    """QMP reported that the machine is paused.

    Args:
        cause: why, such as "disk userdata: No space left on device".
        remedy: what to do, such as a command.
    """

    cause: str
    remedy: str


@frozen
class Resumed:
    """QMP reported that the machine runs again, or QMP ended, so that a pause is no longer known.

    QEMU reports the same after it has loaded an earlier state, in which the guest may not be up.
    """


@frozen
class Stop:
    """A request to power off or reboot a guest: its client, its kind and its time."""

    by: str
    how: str
    asked: Moment


@frozen
class StopAsked:
    """A power-off or reboot is being sent to the guest, or its launcher begins one."""

    by: str
    how: str


@frozen
class FreezeSent:
    """A freeze is being sent, to be thawed at `until`."""

    by: str
    until: Moment


@frozen
class ThawAnswered:
    """The guest answered a thaw that was sent after `covers` freezes of this guest."""

    covers: int


Evidence = (
    Connected | Disconnected | Frame | Booted | Answer | ProbeSent | Silence | Reset | Paused | Resumed | StopAsked
    | FreezeSent | ThawAnswered
)  # fmt: skip
