"""Contradictions between the hosts of a cluster: a guest that is ready on two, and clocks that differ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

from vhostcomm.cluster.following import Observer
from vhostcomm.cluster.records import Record, Trouble, View
from vhostcomm.guest.model import State
from vhostcomm.log.logs import Log

OVERLAP_MAX: Final = 30.0
"""Seconds for which two hosts may have the same guest as ready: the source of a migration learns soon that it is gone."""

SKEWED_LOGGED: Final = 32
"""Maximum hosts whose clock is reported, each once: a tree may have any number of names."""

SKEW: Final = 5.0
"""Seconds by which clocks may differ: a record needs less from its writer to its reader."""

_REPORTED: Final = float("inf")


class Claims(Observer):
    """Compares what hosts have published."""

    def __init__(self, view: View, log: Log) -> None:
        self._view = view
        self._log = log
        self._twice: dict[str, float] = {}
        """Guests that this host and another have as ready, with the time when the message is due."""
        self._skewed: set[str] = set()

    def replaced(self) -> None:
        """Compare the clocks of the hosts whose records were read: a record of any age can't be from the future."""
        latest = time.time() + SKEW
        records: Iterator[Record] = chain(self._view.hosts.values(), self._view.serving.values())
        for each in records:
            if each.written is not None and each.written > latest:
                self.heard(each)

    def heard(self, record: Record) -> None:
        """Compare the clock of the host that has written a record just now."""
        if record.host == self._view.host or record.written is None:
            return
        differs = record.written - time.time()
        if abs(differs) > SKEW and record.host not in self._skewed and len(self._skewed) < SKEWED_LOGGED:
            self._skewed.add(record.host)
            self._log.warning(
                "clock of another host differs", host=record.host, seconds=round(differs),
                consequence="its times are shown as that clock has them", remedy="synchronise both: timedatectl set-ntp true",
            )  # fmt: skip

    def look(self, now: float) -> None:
        """Report each guest that this host and another have had as ready for too long, once.

        `now` is in seconds on the monotonic clock.
        """
        ready = [each for each in self._view.serving.values() if each.state is State.READY]
        here = {each.guest for each in ready if each.host == self._view.host}
        others = {each.guest: each.host for each in ready if each.host != self._view.host and each.guest in here}
        self._twice = {guest: self._twice.get(guest, now + OVERLAP_MAX) for guest in others}
        claimed = sorted(guest for guest, due in self._twice.items() if now >= due or due == _REPORTED)
        self._view.report(
            Trouble.CLAIMED, ", ".join(f"{each} here and on {others[each]}" for each in claimed), time.time()
        )
        for guest, due in self._twice.items():
            if now >= due:
                self._twice[guest] = _REPORTED
                self._log.warning(
                    "guest ready on two hosts", guest=guest, other_host=others[guest],
                    remedy="the same disks may be in use twice: shut one of them down, or give it another name",
                )  # fmt: skip
