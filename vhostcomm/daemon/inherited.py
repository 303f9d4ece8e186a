"""Thaws that this host owes guests which other hosts of the cluster froze, because those guests run here now.

Each host publishes when it thaws a guest that it froze. Another host to which that guest's QEMU is connected owes the thaw
too, and publishes that it has thawed the guest. Then the first host no longer owes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from attrs import frozen

from vhostcomm.channel.calls import TIMEOUT_MAX
from vhostcomm.channel.guest import Guest, now
from vhostcomm.cluster.following import Observer
from vhostcomm.cluster.records import SERVING, THAWED_MAX, Record, ServingRecord, View
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.guest.debt import Debt
from vhostcomm.guest.evidence import Moment
from vhostcomm.guest.model import State

FREEZE_MAX: Final = TIMEOUT_MAX
"""Maximum seconds until a thaw, whatever another host has written: the maximum of a freeze of this host."""


@frozen
class _Freeze:
    """A freeze of another host.

    Args:
        until: when that host thaws the guest, in seconds since 1970 on its clock. Together, they identify the freeze.
        due: when this host thaws it, on the monotonic clock.
    """

    host: str
    until: float
    due: float


class Inherited(Observer):
    """The thaws that this host owes for others, and those that others have seen to.

    Args:
        view: what the hosts have published.
        find: returns a guest of this daemon by its name; None if there is none.
        freezer: owes the thaws.
    """

    def __init__(self, view: View, find: Callable[[str], Guest | None], freezer: Freezer) -> None:
        self._view = view
        self._find = find
        self._freezer = freezer
        self._freezes: dict[str, dict[str, _Freeze]] = {}
        """By guest and host. Those of hosts that died stay, for the guests of this daemon."""
        self._owed: dict[str, _Freeze] = {}
        """The freeze that a guest's debt is for, by guest."""
        self._settled: dict[str, dict[str, float]] = {}
        """Freezes that a guest was thawed from here, by guest and host, while that host publishes them."""
        self._acknowledged: dict[str, tuple[float, str]] = {}
        """The freeze of this host that another host thawed a guest from, with that host, by guest."""
        self._settling = False
        """True while a debt ends without a thaw from here."""

    # -- the records of other hosts

    def replaced(self) -> None:
        """Compare all records. Afterwards, `look` has to be called for each guest."""
        serving = self._view.serving
        for each in serving.values():
            if each.frozen_until is not None or each.thawed or each.guest in self._freezes:
                self._note(each, fresh=False)
        for known in self._freezes, self._settled:
            for guest, host in [(guest, host) for guest, hosts in known.items() for host in hosts]:
                if (guest, host) not in serving and (known is self._settled or not self._find(guest)):
                    _pop(known, guest, host)

    def heard(self, record: Record) -> None:
        """Compare a record that was written just now."""
        if isinstance(record, ServingRecord):
            self._note(record, fresh=True)
            if guest := self._find(record.guest):
                self.look(guest)

    def removed(self, key: str) -> None:
        """Note that a record was deleted: by its host, or because the host died and can't thaw the guest any longer."""
        if not key.startswith(SERVING):
            return
        guest, _, host = key.removeprefix(SERVING).partition("/")
        _pop(self._settled, guest, host)
        # The record of a host is deleted before those of its guests.
        if host in self._view.hosts or not self._find(guest):
            self._forget(guest, host)

    def _note(self, record: ServingRecord, *, fresh: bool) -> None:
        name, host, until = record.guest, record.host, record.frozen_until
        if host == self._view.host:
            return
        if (ours := record.thawed.get(self._view.host)) is not None and self._find(name):
            self._acknowledged[name] = ours, host
        if until is None:
            _pop(self._settled, name, host)
            self._forget(name, host)
        elif until != self._settled.get(name, {}).get(host):
            _pop(self._settled, name, host)
            freezes = self._freezes.setdefault(name, {})
            if host not in freezes or freezes[host].until != until:
                freezes[host] = _Freeze(host, until, trio.current_time() + _left(record, until, fresh=fresh))
                if len(freezes) > THAWED_MAX:
                    del freezes[next(iter(freezes))]

    def _forget(self, name: str, host: str) -> None:
        """Forget the freeze of a host that no longer owes the thaw. Those of other hosts stay."""
        _pop(self._freezes, name, host)
        guest = self._find(name)
        if guest and guest.debt and guest.debt.host == host:
            self._settle(guest, host)
            self.look(guest)

    def _settle(self, guest: Guest, by: str) -> None:
        """End a debt that another host has seen to, without a thaw from here."""
        self._settling = True
        try:
            self._freezer.settle(guest, by)
        finally:
            self._settling = False

    # -- the guests of this host

    def look(self, guest: Guest) -> None:
        """Owe a guest the thaws of other hosts, or note that another host thawed it."""
        debt, name = guest.debt, guest.name
        if guest.model.channel is State.ABSENT:
            until, by = self._acknowledged.get(name, (None, ""))
            if debt and not debt.host and debt.until.wall == until:
                del self._acknowledged[name]
                self._settle(guest, by)
        elif (freezes := self._freezes.get(name)) and (debt is None or debt.host):
            # The last one counts, as on one host, where a freeze may be made longer.
            freeze = max(freezes.values(), key=lambda each: each.due)
            if debt is None or self._owed.get(name) != freeze:
                self._owed[name] = freeze
                self._freezer.owe(guest, _debt(freeze))

    def thawed(self, guest: Guest) -> None:
        """Note that a guest's debt ended. If it answered a thaw here, that thaw ended the freezes of all hosts."""
        if self._settling:
            return
        name = guest.name
        for host, freeze in self._freezes.pop(name, {}).items():
            if (name, host) in self._view.serving:
                self._settled.setdefault(name, {})[host] = freeze.until

    def settled(self, name: str) -> Mapping[str, float]:
        """Return the freezes of other hosts that a guest was thawed from here: `ServingRecord.thawed`."""
        return dict(self._settled.get(name, {}))

    def left(self, name: str) -> None:
        """Forget a guest that this daemon no longer serves. Freezes that are still published stay, as it may return."""
        known: dict[str, Any]
        for known in self._owed, self._settled, self._acknowledged:
            known.pop(name, None)
        for host in tuple(self._freezes.get(name, ())):
            if (name, host) not in self._view.serving:
                _pop(self._freezes, name, host)


def _pop(known: dict[str, Any], guest: str, host: str) -> None:
    if hosts := known.get(guest):
        hosts.pop(host, None)
        if not hosts:
            del known[guest]


def _debt(freeze: _Freeze) -> Debt:
    moment = now()
    until = Moment(freeze.due, moment.wall + freeze.due - moment.at)
    why = f"{freeze.host} froze it, and its time is over"
    return Debt(0, f"a client of {freeze.host}", moment, until, why, freeze.host)


def _left(record: ServingRecord, until: float, *, fresh: bool) -> float:
    """Return the seconds until the thaw is due. Hosts' clocks may differ, so times of that host's clock are compared."""
    wall = time.time()
    left = until - (wall if record.written is None else record.written)
    if not fresh:
        left = min(left, until - wall)
    return max(0.0, min(left, FREEZE_MAX))
