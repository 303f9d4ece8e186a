"""What a guest was answered, and what it told of itself."""

from __future__ import annotations

from functools import cached_property

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

    @cached_property
    def _read(self) -> GuestInformation | PayloadError:
        """What the data says, or why it can't be read. Lists and health ask often, and parsing costs most."""
        try:
            return GuestInformation.from_data(self.data)
        except PayloadError as error:
            return error

    @property
    def address(self) -> str | None:
        """The first address in it, eth0's before others'; None without one, or if it can't be read."""
        if isinstance(self._read, PayloadError):
            return None
        return self._read.address() or next((each.ip for each in self._read.interfaces if each.ip), None)

    @property
    def problem(self) -> str | None:
        """Why it can't be read; None if it can."""
        return str(self._read) if isinstance(self._read, PayloadError) else None

    @property
    def http_port(self) -> int | None:
        """DSM's port, if the guest tells it."""
        return None if isinstance(self._read, PayloadError) else self._read.http_port
