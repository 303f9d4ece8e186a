"""`run` with a cluster: a guest runs on one host only, and a lost lock does not end QEMU."""

from __future__ import annotations

import os
import signal
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.etcd import PREFIX, Etcd
from tests.e2e.launched import Launched
from tests.qemu.roms import IDLE, rom
from tests.serving import run_vhostcomm, until

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd", "qemu-system-x86_64")]
ETCD_MEMBERS = 1


def words(folder: Path, cluster: str, host: str) -> list[str]:
    """Return the flags of a machine that does nothing, forever."""
    disk = folder / "boot.img"
    disk.write_bytes(bytes(1 << 20))
    machine = ["--guest", "nas", "--boot", str(disk), "--accel", "tcg", "--net", "none", "--memory", "32M"]
    sockets = ["--sock", str(folder / "nas"), "--control", str(folder / "control")]
    return [*machine, *sockets, "--cluster", cluster, "--cluster-host", host, "--", *rom(folder, IDLE)]


def launched(folder: Path, etcd: Etcd | str, host: str, *more: str, expect_exit: int | None = 0) -> Launched:
    (folder / host).mkdir(exist_ok=True)
    cluster = etcd if isinstance(etcd, str) else etcd.address
    return Launched(folder / host, *more, *words(folder / host, cluster, host), expect_exit=expect_exit)


def lock(etcd: Etcd) -> dict[str, Any] | None:
    found: dict[str, Any] | None = etcd.records("run/").get("run/nas")
    return found


def ends(etcd: Etcd) -> None:
    """Wait for the release of the lock. Within five seconds, a lease that was just renewed can't have expired instead."""
    until(lambda: lock(etcd) is None, "the end of the lock", 5)


def test_second_host_is_rejected(etcd: Etcd, tmp_path: Path) -> None:
    with launched(tmp_path, etcd, "host1") as first:
        first.event("QEMU runs")
        found = lock(etcd)
        assert found
        assert (found["host"], found["pid"]) == ("host1", first.process.pid)
        refused = run_vhostcomm("run", *words(tmp_path, etcd.address, "host2"))
        assert refused.returncode == 1
        assert refused.stderr.startswith("vhostcomm: nas runs on host1 since 20")
        assert first.stop_at_once() == 0
    ends(etcd)
    with launched(tmp_path, etcd, "host2") as second:
        second.event("QEMU runs")
        assert second.stop_at_once() == 0


def test_a_guest_starts_without_etcd(tmp_path: Path) -> None:
    with launched(tmp_path, "etcd://127.0.0.1:9", "host1") as guest:
        assert guest.event("guest's lock not acquired")["why"] == "http://127.0.0.1:9: Connection refused"
        guest.event("QEMU runs")
        assert guest.stop_at_once() == 0


def test_qemu_survives_a_lost_etcd(etcd: Etcd, tmp_path: Path) -> None:
    with launched(tmp_path, etcd, "host1") as guest:
        guest.event("QEMU runs")
        etcd.members[0].kill()
        assert guest.event("guest's lock lost")["why"] == "its lease has ended"
        etcd.heal()
        guest.event("guest's lock acquired")
        assert (lock(etcd) or {}).get("pid") == guest.process.pid
        os.kill(guest.qemu_pid, 0)
        assert guest.stop_at_once() == 0
    assert [line["event"] for line in guest.log].count("QEMU runs") == 1


def test_qemu_survives_a_lost_lock(etcd: Etcd, tmp_path: Path) -> None:
    """Another host has started the guest meanwhile: QEMU continues to run, but is not restarted after a crash."""
    with launched(tmp_path, etcd, "host1", "--restart", "on-failure", expect_exit=5) as guest:
        guest.event("QEMU runs")
        key = b64encode(f"{PREFIX}run/nas".encode()).decode()
        [entry] = etcd.call("kv/range", key=key)["kvs"]
        etcd.put("run/nas", {"host": "host2"})
        etcd.call("lease/revoke", ID=entry["lease"])
        guest.event("guest's lock lost")
        assert guest.event("guest runs on another host too")["other_host"] == "host2"
        os.kill(guest.qemu_pid, signal.SIGKILL)
        assert guest.event("not started again")["why"] == "host2 has started the guest"
        guest.ends()
    assert lock(etcd) == {"host": "host2"}


def test_the_lock_is_released_if_qemu_does_not_start(etcd: Etcd, tmp_path: Path) -> None:
    refused = run_vhostcomm("run", *words(tmp_path, etcd.address, "host1"), "-no-such-option")
    assert refused.returncode == 3, refused.stderr
    ends(etcd)
