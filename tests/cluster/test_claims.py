"""Contradictions between two hosts, with real daemons and etcd: both report them once, and answer their guests throughout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.cluster.etcd import running
from tests.cluster.hosts import NAS, Host, asking

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd", "/usr/lib/*-linux-gnu/faketime/libfaketimeMT.so.1")]

SERIAL: Final = "AAAAAAAAAAAAA"

CLOCK, CLAIM = "clock of another host differs", "guest ready on two hosts"


def test_a_guest_on_two_hosts_and_a_wrong_clock_are_reported_once(tmp_path: Path) -> None:
    with running(tmp_path, 1) as etcd, Host(tmp_path, "host1", etcd.address, file=NAS) as first:
        first.event("cluster reached")
        with (
            Host(tmp_path, "host2", etcd.address, file=NAS, clock="-1h") as second,
            asking(first.sock) as here,
            asking(second.sock) as there,
        ):
            for host, other, hours in (first, "host2", -1), (second, "host1", 1):
                assert round(host.event(CLOCK, host=other)["seconds"] / 3600) == hours
            etcd.put("guests/nas", {"serial": SERIAL})
            for guest in here, there:
                guest.assert_hears(SERIAL)
            for host, other in (first, "host2"), (second, "host1"):
                message = host.event(CLAIM, guest="nas")
                assert (message["other_host"], message["level"]) == (other, "warning")
            for guest in here, there:
                guest.more()
    for host in first, second:
        said = [line["event"] for line in host.log]
        assert (said.count(CLOCK), said.count(CLAIM)) == (1, 1)
