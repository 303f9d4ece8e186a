"""Contradictions between hosts: a guest that is ready twice, and clocks that differ."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from structlog.testing import LogCapture

from vhostcomm.cluster.records import HostRecord, ServingRecord, Trouble, View
from vhostcomm.daemon.claims import OVERLAP_MAX, SKEW, SKEWED_LOGGED, Claims
from vhostcomm.guest.model import State
from vhostcomm.log.lean_structlog import structlog

HERE = ServingRecord("nas", "host1", State.READY)
THERE = ServingRecord("nas", "host2", State.READY)


@pytest.fixture
def logged() -> LogCapture:
    return LogCapture()


def claims(view: View, logged: LogCapture) -> Claims:
    log: Any = structlog.wrap_logger(None, processors=[logged], wrapper_class=structlog.stdlib.BoundLogger)
    return Claims(view, log)


def test_a_guest_that_stays_ready_on_two_hosts_is_reported_once(logged: LogCapture) -> None:
    view = View("host1")
    made = claims(view, logged)
    view.replace([HERE, THERE, ServingRecord("attic", "host2", State.READY)])
    for now in (0.0, OVERLAP_MAX - 1):
        made.look(now)
        assert not logged.entries
    for now in (OVERLAP_MAX, 2 * OVERLAP_MAX, 3 * OVERLAP_MAX):
        made.look(now)
    assert [(each["event"], each["guest"], each["other_host"]) for each in logged.entries] == [
        ("guest ready on two hosts", "nas", "host2")
    ]
    assert view.troubles[Trouble.CLAIMED][1] == "nas here and on host2"
    # A migration that ends in time is no contradiction; a later one is timed from its own start.
    view.put(attrs.evolve(THERE, state=State.SILENT))
    made.look(4 * OVERLAP_MAX)
    assert not view.troubles
    view.put(THERE)
    made.look(5 * OVERLAP_MAX)
    assert len(logged.entries) == 1
    made.look(6 * OVERLAP_MAX)
    assert len(logged.entries) == 2


def test_a_record_from_the_future_means_that_clocks_differ(logged: LogCapture) -> None:
    """A record may have any age when it is read, so an old one proves nothing."""
    view = View("host1")
    made = claims(view, logged)
    now = time.time()
    view.replace(
        [
            HostRecord("host1", written=now + 3600),
            HostRecord("host2", written=now - 3600),
            HostRecord("host3", written=now - 3600),
            attrs.evolve(THERE, host="host3", written=now + 3000),
        ]
    )
    made.replaced()
    made.replaced()
    assert [(each["event"], each["host"]) for each in logged.entries] == [("clock of another host differs", "host3")]


def test_a_clock_that_differs_is_reported_once(logged: LogCapture) -> None:
    made = claims(View("host1"), logged)
    now = time.time()
    made.heard(HostRecord("host1", written=now - 3600))
    made.heard(HostRecord("host2"))
    made.heard(HostRecord("host2", written=now))
    assert not logged.entries
    for written in (now - 3600, now - 3601):
        made.heard(HostRecord("host2", written=written))
    [message] = logged.entries
    assert (message["event"], message["host"]) == ("clock of another host differs", "host2")
    assert message["seconds"] == pytest.approx(-3600, abs=SKEW)
    made.heard(HostRecord("host2", written=time.time()))
    made.heard(HostRecord("host2", written=time.time() + 3600))
    assert len(logged.entries) == 1
    for number in range(100):
        made.heard(HostRecord(f"other{number}", written=time.time() + 3600))
    assert len(logged.entries) == SKEWED_LOGGED
