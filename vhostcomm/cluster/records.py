"""The records that hosts publish in a cluster: which hosts there are, and which guests run on them. Pure.

A record is a JSON object. Each host writes only records with its own name, so a migration has no conflict. Unknown keys
are ignored, since another host may have a newer version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import attrs
from attrs import define, field, frozen

from vhostcomm.config import values
from vhostcomm.guest.debt import FOREVER
from vhostcomm.guest.model import State
from vhostcomm.text import escape

HOSTS: Final = "hosts/"
SERVING: Final = "serving/"
"""Prefixes of the records' keys: ``hosts/HOST`` and ``serving/GUEST/HOST``."""

VALUE_MAX: Final = 64 << 10
"""Maximum bytes of a value in the tree; a guest with every setting has less than 4 KiB."""

THAWED_MAX: Final = 64
"""Maximum hosts whose freezes of a guest are remembered: a tree may have any number of names."""

_TEXT_MAX: Final = 512
_WHY_MAX: Final = 1000
_HOST: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")


def host_name(value: object) -> str:
    """Parse a host's name, which is also a part of keys.

    Raises:
        ValueError: with the reason.
    """
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError(
            "a host's name has 1 to 253 letters, digits, dots, dashes and underscores, and no dot in front"
        )
    return value


@frozen
class HostRecord:
    """A host whose daemon runs now: ``hosts/HOST``, under a lease.

    Args:
        host: the host's name.
        control: the address of its control surface for other machines, as `--control` takes it; "" for none.
        version: of its vhostcomm.
        since: when its daemon started, in seconds since 1970 on that host's clock.
        written: when the record was written, on the same clock.
    """

    host: str
    control: str = ""
    version: str = ""
    since: float | None = None
    written: float | None = None

    @property
    def key(self) -> str:
        return HOSTS + self.host


@frozen
class ServingRecord:
    """A guest whose QEMU is connected to a host: ``serving/GUEST/HOST``, under that host's lease.

    Times are in seconds since 1970, on that host's clock.

    Args:
        guest: the guest's name.
        host: the host's name.
        state: of the guest, as that host knows it. It is absent only if a thaw is owed.
        since: when that state began.
        evidence: the kind of evidence for the state, such as "frame" or "answer".
        address: the guest's address, if it is known.
        frozen_until: when the guest is thawed, if that host froze it.
        written: when the record was written.
        thawed: the freezes of other hosts that that host thawed the guest from: `frozen_until` of each.
        revision: the tree's revision of the record, a number that grows with each change of the tree. Of several hosts
            with a guest that is ready, the one with the highest revision has the newest evidence, whatever the clocks.
    """

    guest: str
    host: str
    state: State
    since: float | None = None
    evidence: str = ""
    address: str | None = None
    frozen_until: float | None = None
    written: float | None = None
    thawed: Mapping[str, float] = field(factory=dict, hash=False)
    revision: int = field(default=0, eq=False)

    @property
    def key(self) -> str:
        return f"{SERVING}{self.guest}/{self.host}"


Record = HostRecord | ServingRecord


class RecordError(ValueError):
    """A record is invalid."""


def format_record(record: Record) -> bytes:
    """Format a record's value: a JSON object. The names of guest and host are in the key."""
    made = attrs.asdict(record, filter=lambda each, value: each.name not in _IN_KEY and bool(value or value == 0))
    return json.dumps({key: value.value if isinstance(value, State) else value for key, value in made.items()}).encode()


_IN_KEY: Final = {"guest", "host", "revision"}


def parse_record(key: str, value: bytes, revision: int = 0) -> Record:
    """Parse a record.

    Args:
        key: without the tree's prefix.
        value: the JSON object.
        revision: the tree's revision of the record.

    Raises:
        RecordError: the key or the value is invalid; has the key and the reason.
    """
    try:
        document = json_object(value)
        since, written = time_in(document, "since"), time_in(document, "written")
        if key.startswith(HOSTS):
            host = host_name(key.removeprefix(HOSTS))
            return HostRecord(host, _text(document, "control"), _text(document, "version"), since, written)
        guest, _, host = key.removeprefix(SERVING).partition("/")
        return ServingRecord(
            values.name(guest),
            host_name(host),
            State(document.get("state")),
            since,
            _text(document, "evidence"),
            _text(document, "address") or None,
            time_in(document, "frozen_until"),
            written,
            _thawed(document),
            revision,
        )
    except ValueError as error:
        raise RecordError(f"{escape(key)}: {error}") from None


def json_object(value: bytes) -> dict[str, Any]:
    """Parse a value of the tree.

    Raises:
        ValueError: with the reason.
    """
    if len(value) > VALUE_MAX:
        raise ValueError(f"{len(value)} bytes, but a value has at most {VALUE_MAX}")
    try:
        document = json.loads(value.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - a mistake in a value, not in a program
    return document


def _text(document: dict[str, Any], key: str) -> str:
    """Return a text without control characters; another host has written it."""
    found = document.get(key, "")
    if not isinstance(found, str) or len(found) > _TEXT_MAX or not found.isprintable():
        raise ValueError(f"{key} is not printable text of at most {_TEXT_MAX} characters")
    return found


def time_in(document: dict[str, Any], key: str) -> float | None:
    """Return a time of a value of the tree, in seconds since 1970.

    Raises:
        ValueError: with the reason.
    """
    found = document.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < FOREVER:
        raise ValueError(f"{key} is not a time in seconds since 1970")
    return float(found)


def _thawed(document: dict[str, Any]) -> dict[str, float]:
    found = document.get("thawed", {})
    if not isinstance(found, dict) or len(found) > THAWED_MAX:
        raise ValueError(f"thawed is not an object with at most {THAWED_MAX} hosts")
    return {host_name(host): time for host in found if (time := time_in(found, host)) is not None}


class Trouble(Enum):
    """What may be wrong in a cluster while guests are answered."""

    UNREACHED = "etcd can't be reached"
    REJECTED = "the cluster's tree is rejected"
    UNPUBLISHED = "this host's records are not published"
    UNKEPT = "the tree is not kept on this host's disk"
    CLAIMED = "guests are ready on two hosts"


@define
class View:
    """What a cluster's hosts have published, as far as it is known here. Only the membership of this host changes it.

    Args:
        host: the name of this host.
        hosts: the hosts whose daemons run, by name.
        serving: the guests that run somewhere, by the guest's name and the host's.
        troubles: since when, in seconds since 1970, and why. With `UNREACHED`, the view may be out of date.
        changed: called after a change of the troubles.
    """

    host: str = ""
    hosts: dict[str, HostRecord] = field(factory=dict)
    serving: dict[tuple[str, str], ServingRecord] = field(factory=dict)
    troubles: dict[Trouble, tuple[float, str]] = field(factory=dict)
    changed: Callable[[], None] = field(default=lambda: None, eq=False, repr=False)

    def report(self, trouble: Trouble, why: str, now: float) -> None:
        """Note a trouble that begins or lasts, or its end if there is no cause. `now` is in seconds since 1970."""
        before = self.troubles.get(trouble)
        if why:
            self.troubles[trouble] = before[0] if before else now, why
        else:
            self.troubles.pop(trouble, None)
        if self.troubles.get(trouble) != before:
            self.changed()

    @property
    def warnings(self) -> list[str]:
        """The troubles in words, for operators."""
        return [
            f"{each.value} since {datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}: {escape(why, _WHY_MAX)}"
            for each in Trouble
            if each in self.troubles
            for since, why in (self.troubles[each],)
        ]

    def replace(self, records: Iterable[Record]) -> None:
        """Forget all records, and use these."""
        self.hosts.clear()
        self.serving.clear()
        for each in records:
            self.put(each)

    def put(self, record: Record) -> None:
        if isinstance(record, HostRecord):
            self.hosts[record.host] = record
        else:
            self.serving[record.guest, record.host] = record

    def remove(self, key: str) -> None:
        """Remove the record of a key, if there is one."""
        if key.startswith(HOSTS):
            self.hosts.pop(key.removeprefix(HOSTS), None)
        elif key.startswith(SERVING):
            guest, _, host = key.removeprefix(SERVING).partition("/")
            self.serving.pop((guest, host), None)
