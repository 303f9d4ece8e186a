"""A frozen guest that moves to another host, with a real etcd: the thaw is owed there, and sent once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.etcd import Etcd, running
from tests.cluster.hosts import HOSTS_TIMEOUT, NAS, Host, asking
from tests.control.controlled import INFORMATION, answering, client, post
from tests.serving import until
from vchannel import GuestCommand
from vhostcomm.daemon.inherited import FREEZE_MAX

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]

INFO, FREEZE, THAW = GuestCommand.GET_INFORMATION, GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE
POWEROFF = GuestCommand.POWEROFF


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running(tmp_path_factory.mktemp("etcd"), 1) as etcd:
        yield etcd


@pytest.fixture
def etcd(member: Etcd) -> Etcd:
    member.clear()
    return member


def record(etcd: Etcd, host: str) -> dict[str, Any]:
    """What a host has published about the guest."""
    return dict(etcd.records("serving/").get(f"serving/nas/{host}", {}))


def owed(host: Host) -> dict[str, Any] | None:
    """The thaw that a host owes the guest."""
    with client(host.control) as http:
        found: dict[str, Any] | None = http.get("/guests/nas").json()["thaw_owed"]
    return found


def freeze(etcd: Etcd, host: Host, seconds: float) -> float:
    """Freeze a guest that leaves the host at once. Return the end of the freeze."""
    # It answers no thaw: on a slow machine, the freeze may end before the guest leaves.
    with answering(host.sock, {FREEZE: b"", INFO: INFORMATION}), client(host.control) as http:
        assert post(http, "/guests/nas/freeze", timeout=seconds)[0] == 200
        until(lambda: "frozen_until" in record(etcd, host.name), "the record of the freeze", HOSTS_TIMEOUT)
    host.event("guest gone")
    return float(record(etcd, host.name)["frozen_until"])


def test_the_thaw_moves_with_the_guest(etcd: Etcd, tmp_path: Path) -> None:
    with (
        Host(tmp_path, "host1", etcd.address, file=NAS) as first,
        Host(tmp_path, "host2", etcd.address, file=NAS) as second,
    ):
        end = freeze(etcd, first, 10)
        with answering(second.sock, {THAW: b"", INFO: INFORMATION}) as guest:
            assert second.event("guest owed a thaw")["frozen_by"] == "a client of host1"
            thawed = second.event("thawed", why="host1 froze it, and its time is over")
            assert datetime.fromisoformat(thawed["timestamp"]).timestamp() >= end - 0.001
            first.event("thawed", by="host2")
            until(lambda: record(etcd, "host1") == {}, "the end of the record", HOSTS_TIMEOUT)
            until(lambda: "thawed" not in record(etcd, "host2"), "the end of what is settled", HOSTS_TIMEOUT)
            assert guest.asked.count(THAW) == 1
        assert owed(first) is owed(second) is None
        until(lambda: not [*tmp_path.glob("*/.nas.frozen")], "the end of the files", HOSTS_TIMEOUT)


def test_a_debt_outlives_the_host_that_froze_the_guest(etcd: Etcd, tmp_path: Path) -> None:
    """The other host still owes the thaw, even after a restart without etcd."""
    with Host(tmp_path, "host2", etcd.address, file=NAS, expect_exit=-signal.SIGKILL) as second:
        with Host(tmp_path, "host1", etcd.address, file=NAS, expect_exit=-signal.SIGKILL) as first:
            freeze(etcd, first, 3600)
            first.send_signal(signal.SIGKILL)
        until(lambda: record(etcd, "host1") == {}, "the end of the lease", HOSTS_TIMEOUT)
        with answering(second.sock, {THAW: b"", INFO: INFORMATION, POWEROFF: b""}) as guest:
            second.event("guest owed a thaw")
            with client(second.control) as http:
                assert post(http, "/guests/nas/shutdown", timeout=60)[0] == 200
            assert [each for each in guest.asked if each is not INFO] == [THAW, POWEROFF]
        with (
            Host(tmp_path, "host1", etcd.address, file=NAS, expect_exit=-signal.SIGKILL) as first,
            answering(second.sock, {INFO: INFORMATION}),
        ):
            # The debt, which is due now, is in the file of host2.
            second.event("guest owed a thaw")
            until((second.folder / ".nas.frozen").exists, "the record of the debt")
            first.send_signal(signal.SIGKILL)
            second.send_signal(signal.SIGKILL)
    with (
        Host(tmp_path, "host2", "etcd://127.0.0.1:9", file=NAS) as second,
        answering(second.sock, {THAW: b"", INFO: INFORMATION}),
    ):
        second.event("thawed", why="a daemon before this one froze it")


def test_wrong_freeze_records_are_limited_or_ignored(etcd: Etcd, tmp_path: Path) -> None:
    """A freeze for 8,000 years has the same limit as one of this host. A record with an invalid time is ignored."""
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host, asking(host.sock) as guest:
        guest.more()
        etcd.put("serving/nas/host2", {"state": "ready", "frozen_until": 1e300})
        host.event(
            "record of a host ignored", why="serving/nas/host2: frozen_until is not a time in seconds since 1970"
        )
        etcd.put("serving/nas/host3", {"state": "absent", "frozen_until": 253_402_300_000, "written": 0})
        host.event("guest owed a thaw", frozen_by="a client of host3")
        found = owed(host)
        assert found is not None
        left = datetime.fromisoformat(found["until"]) - datetime.fromisoformat(found["since"])
        assert left.total_seconds() == pytest.approx(FREEZE_MAX, abs=1)
        guest.more()
