"""The last answers to a guest, and its reports about itself."""

from __future__ import annotations

from functools import cached_property

from attrs import frozen

from vchannel import GuestInformation, PayloadError
from vhostcomm.guest.evidence import Moment


@frozen
class Answered:
    """The last answer to a command of a guest, with its time in seconds since 1970."""

    text: str
    when: float


@frozen
class Information:
    """The data of a guest's answer about itself, with the time of the answer."""

    data: bytes
    received: Moment

    @cached_property
    def _read(self) -> GuestInformation | PayloadError:
        """Parse the data, or return the error. Cached, because parsing costs most of a list or health check."""
        try:
            return GuestInformation.from_data(self.data)
        except PayloadError as error:
            return error

    @property
    def address(self) -> str | None:
        """The first address, eth0's if there is one; None without an address, or if the data is invalid."""
        if isinstance(self._read, PayloadError):
            return None
        return self._read.address() or next((each.ip for each in self._read.interfaces if each.ip), None)

    @property
    def problem(self) -> str | None:
        """What is wrong with the data; None if nothing is."""
        return str(self._read) if isinstance(self._read, PayloadError) else None

    @property
    def http_port(self) -> int | None:
        """DSM's port, if the guest reports it."""
        return None if isinstance(self._read, PayloadError) else self._read.http_port
