"""Evidence of what a guest does: the only thing its model is fed with.

What comes through the guest's channel names its connection, by number: evidence of an earlier connection is ignored.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Moment:
    """A time on two clocks.

    Args:
        at: seconds on a clock that only goes forward. Every decision uses this one.
        wall: seconds since 1970, which may be set at any time. Only for showing.
    """

    at: float
    wall: float


@frozen
class Connected:
    """QEMU connected to the guest's channel."""

    connection: int


@frozen
class Disconnected:
    """The connection ended; `why`, for people."""

    connection: int
    why: str


@frozen
class Frame:
    """The guest asked or told something of its own accord; `asks` if it wants an answer."""

    connection: int
    asks: bool = False


@frozen
class Booted:
    """The guest told that it starts (its command 3)."""

    connection: int


@frozen
class Answer:
    """The guest answered a question; a late answer proves as much as one in time."""

    connection: int


@frozen
class ProbeSent:
    """The harmless question was sent, to find out whether the guest is up."""

    connection: int


@frozen
class Silence:
    """The harmless question was not answered in time, and nothing else came from the guest meanwhile."""

    connection: int


@frozen
class Reset:
    """QMP told that the machine was reset."""

    by_guest: bool


@frozen
class Paused:
    """QMP told that the machine is paused.

    Args:
        cause: why, such as "disk userdata: No space left on device".
        remedy: what to do, such as a command.
    """

    cause: str
    remedy: str


@frozen
class Resumed:
    """QMP told that the machine runs again, or QMP ended, so nobody knows of a pause any more."""


@frozen
class Stop:
    """A request to power off or to restart a guest: who asked, how, and when."""

    by: str
    how: str
    asked: Moment

    @property
    def when(self) -> float:
        """Seconds since 1970."""
        return self.asked.wall


@frozen
class StopAsked:
    """A power-off or restart is sent to the guest, or begun by its launcher."""

    by: str
    how: str


@frozen
class FreezeSent:
    """A freeze is sent, to be undone at `until`."""

    by: str
    until: Moment


@frozen
class ThawAnswered:
    """A thaw was answered that was sent after `covers` freezes of this guest."""

    covers: int


Evidence = (
    Connected | Disconnected | Frame | Booted | Answer | ProbeSent | Silence | Reset | Paused | Resumed | StopAsked
    | FreezeSent | ThawAnswered
)  # fmt: skip
