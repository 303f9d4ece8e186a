"""What a guest was answered, and what it told of itself."""

from __future__ import annotations

from attrs import frozen

from vchannel import GuestInformation, PayloadError
from vhostcomm.guest.evidence import Moment


@frozen
class Answered:
    """The last answer that a guest got to a command, and when (seconds since 1970)."""

    text: str
    when: float


@frozen
class Information:
    """The data of a guest's answer about itself, and when it came."""

    data: bytes
    told: Moment

    @property
    def when(self) -> float:
        """Seconds since 1970."""
        return self.told.wall

    @property
    def address(self) -> str | None:
        """The first address in it, eth0's before others'; None without one, or if it can't be read."""
        try:
            told = GuestInformation.from_data(self.data)
        except PayloadError:
            return None
        return told.address() or next((each.ip for each in told.interfaces if each.ip), None)

    @property
    def problem(self) -> str | None:
        """Why it can't be read; None if it can."""
        try:
            GuestInformation.from_data(self.data)
        except PayloadError as error:
            return str(error)
        return None

    @property
    def http_port(self) -> int | None:
        """DSM's port, if the guest tells it."""
        try:
            return GuestInformation.from_data(self.data).http_port
        except PayloadError:
            return None
