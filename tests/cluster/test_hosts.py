"""Two daemons as two hosts, with the three members of a real etcd, whose failures stop no guest's answers."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.etcd import PREFIX, Etcd, Member
from tests.cluster.hosts import HOSTS_TIMEOUT, NAS, Host, asking
from tests.control.controlled import INFORMATION, answering
from tests.serving import run_vhostcomm, until
from vchannel import GuestCommand
from vhostcomm.cluster.tree_file import NAME

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]
ETCD_MEMBERS = 3

ONE, TWO, THREE = "AAAAAAAAAAAAA", "BBBBBBBBBBBBB", "CCCCCCCCCCCCC"


def test_a_change_reaches_all_hosts(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("guests/nas", {"serial": ONE})
    with (
        Host(tmp_path, "host1", etcd.address, file=NAS) as first,
        Host(tmp_path, "host2", etcd.address, file=NAS) as second,
        asking(first.sock) as there,
        asking(second.sock) as elsewhere,
    ):
        there.assert_hears(ONE)
        elsewhere.assert_hears(ONE)
        etcd.put("guests/nas", {"serial": TWO})
        there.assert_hears(TWO)
        elsewhere.assert_hears(TWO)
        # An invalid tree changes nothing, also together with a valid change.
        etcd.put("guests/attic", {"serail": TWO})
        revision = etcd.put("guests/nas", {"serial": THREE})
        for each in first, second:
            why = each.event("tree rejected, the last accepted one stays", revision=revision)["why"]
            assert (
                why == "etcd: guests/attic.serail: unknown; did you mean serial? known: " + why.rpartition("known: ")[2]
            )
        there.more()
        etcd.delete("guests/attic")
        there.assert_hears(THREE)
        elsewhere.assert_hears(THREE)
        assert there.serials[-2:] == elsewhere.serials[-2:] == [TWO, THREE]
        # A tree without any key is rejected, too: the wrong etcd looks the same.
        etcd.delete("guests/nas")
        for each in first, second:
            why = each.event("tree rejected, the last accepted one stays")["why"]
            assert why.startswith("etcd: no key is left below /vhostcomm/v1/; if that is meant")
        there.more()
        etcd.put("cluster", {})
        there.assert_hears("0" * 13)


def test_a_start_without_etcd_uses_the_last_accepted_tree(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("guests/nas", {"serial": ONE})
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        until((host.folder / NAME).exists)
    etcd.put("guests/nas", {"serial": TWO})
    assert stat.S_IMODE((host.folder / NAME).stat().st_mode) == 0o600
    with Host(tmp_path, "host1", "etcd://127.0.0.1:9", file=NAS) as host:
        host.event("cluster not reached", why="http://127.0.0.1:9: Connection refused")
        with asking(host.sock) as guest:
            guest.assert_hears(ONE)
    (host.folder / NAME).write_bytes(b"damaged")
    with Host(tmp_path, "host1", "etcd://127.0.0.1:9", file=NAS) as host:
        host.event("kept tree not used", why=f"{host.folder}/{NAME}: it is not the record of a tree; delete the file")
        with asking(host.sock) as guest:
            guest.assert_hears("0" * 13)


def test_the_records_of_a_host_vanish_with_it(etcd: Etcd, tmp_path: Path) -> None:
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host:
        with asking(host.sock) as guest:
            guest.more()
            until(lambda: etcd.records("serving/").get("serving/nas/host1", {}).get("state") == "ready")
            record = etcd.records("hosts/")["hosts/host1"]
            assert record["control"] == f"ssh://host1{host.control}"
        until(lambda: "serving/nas/host1" not in etcd.records("serving/"))
        assert "hosts/host1" in etcd.records("hosts/")
    until(lambda: etcd.records("hosts/") == {}, "the end of the records", HOSTS_TIMEOUT)


def test_a_killed_host_vanishes_with_its_lease(etcd: Etcd, tmp_path: Path) -> None:
    """The host's successor publishes as soon as the name is free, and reports no other daemon of this name."""

    def published() -> float:
        return float(etcd.records("hosts/").get("hosts/host1", {}).get("since", 0))

    with Host(tmp_path, "host1", etcd.address, file=NAS, expect_exit=-signal.SIGKILL) as host:
        until(published)
        first = published()
        host.send_signal(signal.SIGKILL)
    with Host(tmp_path, "host1", etcd.address, file=NAS) as successor:
        until(lambda: published() > first, "the end of the lease", HOSTS_TIMEOUT)
    assert "this host's records not published" not in {each["event"] for each in successor.log}


def test_verbs_find_the_hosts_in_etcd(etcd: Etcd, tmp_path: Path) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return run_vhostcomm(*words, "--cluster", etcd.address)

    etcd.put("guests/nas", {"serial": ONE})
    nobody = ask("guests")
    assert nobody.returncode == 1
    assert nobody.stderr.startswith(f"vhostcomm: {etcd.address} lists no host to ask; start vhostcomm serve --cluster")
    places = {each: str(tmp_path / each / "control") for each in ("host1", "host2")}
    with (
        Host(tmp_path, "host1", etcd.address, "--cluster-control", places["host1"], file=NAS),
        Host(tmp_path, "host2", etcd.address, "--cluster-control", places["host2"], file=NAS) as second,
    ):
        second.event("reloaded")
        with answering(second.sock, {GuestCommand.GET_INFORMATION: INFORMATION, GuestCommand.POWEROFF: lambda: None}):
            second.event("guest ready")
            until(lambda: len(etcd.records("hosts/")) == 2)
            [guest] = json.loads(ask("guests", "--json").stdout)
            assert (guest["host"], guest["state"], guest["serial"]) == (places["host2"], "ready", ONE)
            assert "10.0.2.15" in ask("info", "nas").stdout
            gone = ask("shutdown", "nas", "--wait", "30")
            assert gone.stdout.startswith("nas: gone after "), gone
        etcd.put("hosts/host3", {"control": "tcp:127.0.0.1:9"})
        etcd.put("hosts/host4", {"control": "ssh://a b"})
        listed = ask("guests", "--json")
        assert "host4 can't be asked: its daemon publishes ssh://a b; start it with" in listed.stderr
        assert "host3 can't be asked: its daemon publishes tcp:127.0.0.1:9; start it with" in listed.stderr
        assert [(each["host"], each["state"]) for each in json.loads(listed.stdout)] == [(None, "absent")]


def test_records_of_other_hosts_delay_no_guest(etcd: Etcd, tmp_path: Path) -> None:
    """There are more keys than in one answer, keys that are not UTF-8, and values too large for one answer."""
    for hundred in range(4):
        puts = [
            {"request_put": {"key": b64encode(PREFIX.encode() + b"hosts/\xff%d%02d" % (hundred, place)).decode()}}
            for place in range(100)
        ]
        etcd.call("kv/txn", success=puts)
    for place in range(4):
        etcd.put(f"serving/{place}", b"x" * (11 << 17))
    etcd.put("guests/nas", {"serial": ONE})
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        etcd.put("guests/nas", {"serial": TWO})
        guest.assert_hears(TWO)


def test_a_change_arrives_after_the_watched_leader_was_killed(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("guests/nas", {"serial": ONE})
    leader, other, _ = members = etcd.leader_first()
    with Host(tmp_path, "host1", etcd.address_of(members), file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        leader.kill()
        guest.more()
        put_after_election(etcd, {"serial": TWO}, other)
        guest.assert_hears(TWO)


def test_a_change_arrives_while_the_watched_leader_hangs(etcd: Etcd, tmp_path: Path) -> None:
    """The leader's connections stay open but silent. A renewal of the lease detects it."""
    etcd.put("guests/nas", {"serial": ONE})
    leader, other, _ = members = etcd.leader_first()
    with Host(tmp_path, "host1", etcd.address_of(members), file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        until(lambda: "hosts/host1" in etcd.records("hosts/", other))
        leader.stop()
        guest.more()
        put_after_election(etcd, {"serial": TWO}, other)
        guest.assert_hears(TWO)
        leader.resume()
        etcd.put("guests/nas", {"serial": THREE}, other)
        guest.assert_hears(THREE)


def test_guests_are_answered_until_a_lost_quorum_is_regained(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("guests/nas", {"serial": ONE})
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        host.event("cluster reached")
        for each in etcd.members[1:]:
            each.kill()
        # Without a leader, the watch of the remaining member would be silent for ever.
        host.event("cluster not reached")
        guest.more()
        with Host(tmp_path, "host2", etcd.address, file=NAS) as other, asking(other.sock) as elsewhere:
            other.event("cluster not reached")
            elsewhere.assert_hears("0" * 13)
            etcd.heal()
            elsewhere.assert_hears(ONE)
            put_after_election(etcd, {"serial": TWO}, etcd.members[0])
            guest.assert_hears(TWO)
            elsewhere.assert_hears(TWO)
        until(lambda: list(etcd.records("hosts/")) == ["hosts/host1"])


def test_a_watch_survives_a_compaction(etcd: Etcd, tmp_path: Path) -> None:
    etcd.put("guests/nas", {"serial": ONE})
    with Host(tmp_path, "host1", etcd.address, file=NAS) as host, asking(host.sock) as guest:
        guest.assert_hears(ONE)
        revision = etcd.put("guests/nas", {"serial": TWO})
        etcd.call("kv/compaction", revision=str(revision), physical=True)
        guest.assert_hears(TWO)
        etcd.put("guests/nas", {"serial": THREE})
        guest.assert_hears(THREE)


def put_after_election(etcd: Etcd, value: object, at: Member) -> None:
    """Change the guest once there is a leader. A write before that may be executed much later."""

    def has_leader() -> bool:
        with suppress(AssertionError):
            etcd.records("guests/", at)
            return True
        return False

    until(has_leader, "an election", HOSTS_TIMEOUT)
    etcd.put("guests/nas", value, at)
