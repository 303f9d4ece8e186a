"""The commands, in two namespaces that share small numbers and nothing else.

A guest sends `HostCommand` to its host, and a host sends `GuestCommand` to its guest. ``protocol/README.md`` has the
evidence for each.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Self


class Known(Enum):
    """The evidence for a fact about the protocol."""

    CONFIRMED = "confirmed"
    """Seen in the public trace, or sent by deployed tools and accepted by genuine guests."""
    INFERRED = "inferred"
    """Concluded from a name, a table or a position; nobody has published it in use."""
    UNKNOWN = "unknown"


class Kind(Enum):
    """The type of a frame's data."""

    EMPTY = "empty"
    TEXT = "text"
    """UTF-8 with a closing NUL, which the length includes."""
    INTEGER = "integer"
    """A decimal number as text with its NUL."""
    JSON = "json"
    """A JSON document as text with its NUL."""
    UNKNOWN = "unknown"


class _Command(IntEnum):
    """A command's number with the facts about it.

    It equals its number, but no command of the other namespace: 10 of one is not 10 of the other.
    """

    known: Known
    asks: Kind
    answers: Kind
    carries: str
    dangerous: bool

    def __new__(
        cls,
        value: int,
        # Defaults, so that a type checker accepts HostCommand(5) as a look-up.
        known: Known = Known.UNKNOWN,
        asks: Kind = Kind.UNKNOWN,
        answers: Kind = Kind.UNKNOWN,
        carries: str = "",
        dangerous: bool = False,
    ) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.known = known
        member.asks = asks
        member.answers = answers
        member.carries = carries
        member.dangerous = dangerous
        return member

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, _Command) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


_SURE, _LIKELY = Known.CONFIRMED, Known.INFERRED
_NONE, _TEXT, _INT, _JSON, _WHAT = Kind.EMPTY, Kind.TEXT, Kind.INTEGER, Kind.JSON, Kind.UNKNOWN
_RISKY = True


class HostCommand(_Command):
    """Guest → host: the questions and notifications of a guest.

    Each member has `known`, `asks` and `answers` (the types of data in the request and in its response), and `carries`,
    a description.
    """

    GUEST_INFO = 2, _LIKELY, _WHAT, _NONE, "information about the guest; content unknown"
    GUEST_POWER = 3, _SURE, _WHAT, _NONE, "the guest starts or restarts; marks a new boot"
    HOST_VERSION = 4, _SURE, _NONE, _JSON, "the host's DSM build and small fix number"
    GUEST_SERIAL = 5, _SURE, _NONE, _TEXT, "the guest's serial number"
    GUEST_CPU = 7, _SURE, _NONE, _JSON, "the guest's CPU name and number of vCPUs"
    VMM_VERSION = 8, _SURE, _NONE, _JSON, "the Virtual Machine Manager's version and build time"
    HOST_VERSION_SECOND = 9, _LIKELY, _WHAT, _WHAT, "a second form of the host's version; content unknown"
    NETWORK_RESULT = 10, _LIKELY, _WHAT, _JSON, "the outcome of a network change"
    GUEST_UUID = 11, _SURE, _NONE, _TEXT, "the guest's UUID"
    CLUSTER_UUID = 12, _SURE, _NONE, _TEXT, "the host cluster's UUID"
    HOST_SERIAL = 13, _SURE, _NONE, _TEXT, "the host's serial number"
    HOST_MAC = 14, _SURE, _NONE, _TEXT, "the host's MAC address, lower case with colons"
    HOST_MODEL = 15, _SURE, _NONE, _TEXT, "the host's model"
    UPDATE_DEADLINE = 16, _SURE, _NONE, _INT, "the end of the right to updates; in seconds since 1970, by inference"
    GUEST_TIMESTAMP = (
        17,
        _SURE,
        _INT,
        _NONE,
        "a time, probably in seconds since 1970; no reply seen",
    )


class GuestCommand(_Command):
    """Host → guest: the questions and requests of a host.

    Each member has the attributes of `HostCommand`, and `dangerous`: it can lose data, settings or a secret.
    """

    TEST = 0, _LIKELY, _WHAT, _WHAT, "a test; arguments unknown"
    WEBAPI = 1, _LIKELY, _WHAT, _WHAT, "a call of DSM's web API; arguments unknown", _RISKY
    GET_IP = 2, _LIKELY, _WHAT, _WHAT, "the guest's addresses"
    GET_UPTIME = 5, _LIKELY, _WHAT, _WHAT, "how long the guest has been up"
    POWEROFF = 6, _SURE, _NONE, _WHAT, "shut the guest down cleanly; its reply may be empty"
    REBOOT = 8, _LIKELY, _WHAT, _WHAT, "restart the guest"
    RESIZE_VDISK = 9, _LIKELY, _WHAT, _WHAT, "report a disk's new size; arguments unknown"
    GET_INFORMATION = 10, _SURE, _NONE, _JSON, "the guest's settings and addresses"
    GET_DSM_SETTING = 11, _LIKELY, _WHAT, _WHAT, "DSM's settings"
    RESET = 12, _LIKELY, _WHAT, _WHAT, "reset to factory settings", _RISKY
    DELETE_VDISK = 13, _LIKELY, _WHAT, _WHAT, "delete a disk; arguments unknown", _RISKY
    FS_FREEZE = 14, _LIKELY, _WHAT, _WHAT, "freeze the guest's file systems"
    FS_UNFREEZE = 15, _LIKELY, _WHAT, _WHAT, "thaw the guest's file systems"
    GET_FIRMWARE_VERSION = 16, _LIKELY, _WHAT, _WHAT, "the guest's firmware version"
    SET_NETWORK = 17, _LIKELY, _WHAT, _WHAT, "change the guest's network; arguments unknown"
    GUEST_NOTIFY = 18, _LIKELY, _WHAT, _WHAT, "notify the guest; arguments unknown"
    GET_DEFAULT_PW = 19, _LIKELY, _WHAT, _WHAT, "the guest's default password", _RISKY


Command = HostCommand | GuestCommand | int
"""A command of either namespace, or the number of an unknown one."""
