"""Frozen file systems are thawed in time, even if the client, the connection or an answer of the guest is lost."""

from __future__ import annotations

import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.control.controlled import INFORMATION, answering, client, controlled, post
from tests.serving import Serving, fake_guest, run_vhostcomm, until
from vchannel import HostCommand
from vhostcomm.channel.calls import OUTSTANDING_LIMIT

POWEROFF, REBOOT, INFO, FREEZE, THAW = 6, 8, 10, 14, 15


def test_a_freeze_ends_by_itself(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (daemon, http),
        answering(tmp_path / "nas", {FREEZE: b"", THAW: b"", REBOOT: b""}) as guest,
    ):
        assert post(http, "/guests/nas/freeze", timeout=0.3)[0] == 200
        daemon.event("frozen")
        assert daemon.event("thawed")["why"] == "its time is over"
        assert http.get("/guests/nas").json()["frozen_until"] is None
        _, done = post(http, "/guests/nas/freeze")
        assert done["frozen_until"] == http.get("/guests/nas").json()["frozen_until"]
        assert post(http, "/guests/nas/thaw")[0] == 200
        assert "control" in daemon.event("thawed")["by"]
        # A frozen guest is thawed before its reboot, and when the daemon ends.
        post(http, "/guests/nas/freeze")
        assert post(http, "/guests/nas/reboot")[0] == 200
        post(http, "/guests/nas/freeze")
        daemon.stop()
        assert [int(each) for each in guest.asked] == [14, 15, 14, 15, 14, 15, 8, 14, 15]


def test_an_unanswered_freeze_is_thawed(tmp_path: Path) -> None:
    with controlled(tmp_path) as (daemon, http), answering(tmp_path / "nas", {THAW: b""}) as guest:
        frozen = ThreadPoolExecutor(1).submit(post, http, "/guests/nas/freeze", timeout=0.2)
        assert frozen.result()[0] == 504
        daemon.event("thawed")
        assert [int(each) for each in guest.asked] == [14, 15]


@pytest.mark.slow
def test_a_guest_that_ignores_a_thaw_can_be_shut_down(tmp_path: Path) -> None:
    """The guest may know neither freeze nor thaw: both commands are inferred."""
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        assert post(http, "/guests/nas/freeze", timeout=0.05)[0] == 504
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(post, http, "/guests/nas/shutdown", timeout=20)
            while (asked := guest.next_request()).command != POWEROFF:
                assert asked.command in (FREEZE, THAW, INFO)
                if asked.command == INFO:  # the question whether the guest is up
                    guest.sock.sendall(asked.reply(INFORMATION).raw)
            guest.sock.sendall(asked.reply(b"").raw)
            assert stopping.result()[0] == 200


def test_a_thaw_gets_through_where_calls_hang(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (_, http),
        ThreadPoolExecutor(OUTSTANDING_LIMIT) as pool,
        fake_guest(tmp_path / "nas") as guest,
    ):
        guest.serial()
        freezing = pool.submit(post, http, "/guests/nas/freeze", timeout=600)
        guest.sock.sendall(guest.next_request().reply(b"").raw)
        assert freezing.result()[0] == 200
        hanging = [
            pool.submit(post, http, "/guests/nas/call", command=77, timeout=600) for _ in range(OUTSTANDING_LIMIT)
        ]
        for _ in hanging:
            assert guest.next_request().command == 77
        assert post(http, "/guests/nas/call", command=77)[0] == 429
        with ThreadPoolExecutor(1) as another:
            thawing = another.submit(post, http, "/guests/nas/thaw")
            asked = guest.next_request()
            assert asked.command == THAW
            guest.sock.sendall(asked.reply(b"").raw)
            assert thawing.result()[0] == 200
        guest.sock.close()
        assert {each.result()[0] for each in hanging} == {502}


@pytest.mark.slow
def test_a_frozen_guest_that_reconnects_is_thawed(tmp_path: Path) -> None:
    with controlled(tmp_path) as (daemon, http):
        with answering(tmp_path / "nas", {FREEZE: b""}):
            assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
        daemon.event("guest gone")
        with answering(tmp_path / "nas", {THAW: b"", INFO: INFORMATION}) as guest:
            assert "connection ended" in daemon.event("thawed")["why"]
            until(lambda: guest.asked == [THAW])
        assert http.get("/guests/nas").json()["frozen_until"] is None


def test_a_frozen_guest_that_a_reload_removes_is_thawed(tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    one, two = (f'[guests.{name}]\nsock = "{tmp_path / name}"\n' for name in ("one", "two"))
    config.write_text(one + two)
    with (
        Serving("--config", config, "--control", tmp_path / "control"),
        client(tmp_path / "control") as http,
        answering(tmp_path / "two", {FREEZE: b"", THAW: b""}) as guest,
    ):
        assert post(http, "/guests/two/freeze", timeout=600)[0] == 200
        config.write_text(one)
        assert post(http, "/reload") == (200, {"reloaded": True, "guests": ["one"], "needs_restart": []})
        assert guest.asked == [FREEZE, THAW]


def test_the_next_daemon_thaws_guests_of_a_killed_one(tmp_path: Path) -> None:
    """A frozen guest asks nothing, so the daemon can't know whether it is up. The daemon sends the thaw anyway."""
    record = tmp_path / ".nas.frozen"
    with controlled(tmp_path, expect_exit=-9) as (daemon, http), answering(tmp_path / "nas", {FREEZE: b""}):
        assert post(http, "/guests/nas/freeze", timeout=600)[0] == 200
        daemon.process.kill()
        daemon.process.wait()
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
    with controlled(tmp_path) as (daemon, http):
        owed = http.get("/guests/nas").json()["thaw_owed"]
        (line,) = [each for each in daemon.log if each["event"] == "guest owed a thaw"]
        assert line["frozen_by"] == owed["by"]
        assert "thaw owed" in run_vhostcomm("guests", "--control", tmp_path / "control").stdout
        with fake_guest(tmp_path / "nas") as guest:
            asked = guest.next_request()
            assert asked.command == THAW
            guest.sock.sendall(asked.reply(b"").raw)
            assert "before this one" in daemon.event("thawed")["why"]
            assert http.get("/guests/nas").json()["thaw_owed"] is None
        assert not record.exists()


def test_a_record_that_can_not_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / ".nas.frozen").write_text("{")
    with controlled(tmp_path) as (daemon, _):
        (line,) = [each for each in daemon.log if each["event"] == "record of a freeze not read"]
        assert "vhostcomm thaw nas" in line["remedy"]


def test_a_thaw_is_owed_through_a_reset_and_a_reconnect(tmp_path: Path) -> None:
    """The next boot may receive a freeze that QEMU queued, so its start proves nothing. Only an answered thaw does."""
    with controlled(tmp_path) as (daemon, http), ThreadPoolExecutor(1) as pool:
        with fake_guest(tmp_path / "nas") as guest:
            guest.serial()
            freezing = pool.submit(post, http, "/guests/nas/freeze", timeout=600)
            guest.sock.sendall(guest.next_request().reply(b"").raw)
            assert freezing.result()[1]["frozen_until"]
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            assert guest.next_request().command == THAW  # left unanswered
            assert http.get("/guests/nas").json()["thaw_owed"]
        daemon.event("guest gone")
        with fake_guest(tmp_path / "nas") as guest:
            asked = guest.next_request()
            assert asked.command == THAW
            guest.sock.sendall(asked.reply(b"").raw)
            assert daemon.event("thawed")["why"] == "it started again"
            assert http.get("/guests/nas").json()["thaw_owed"] is None


def test_a_thaw_and_a_freeze_that_are_answered_together(tmp_path: Path) -> None:
    """A thaw covers the freezes that were sent before it, and no later one, in whatever order the answers arrive."""
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest, ThreadPoolExecutor(2) as pool:
        guest.serial()
        for _ in range(8):
            thawing = pool.submit(post, http, "/guests/nas/thaw")
            thaw = guest.next_request()
            freezing = pool.submit(post, http, "/guests/nas/freeze", timeout=600)
            freeze = guest.next_request()
            guest.sock.sendall(thaw.reply(b"").raw + freeze.reply(b"").raw)
            assert (thawing.result()[0], freezing.result()[0]) == (200, 200)
            end = freezing.result()[1]["frozen_until"]
            assert end
            assert http.get("/guests/nas").json()["frozen_until"] == end
            last = pool.submit(post, http, "/guests/nas/thaw")
            guest.sock.sendall(guest.next_request().reply(b"").raw)
            assert last.result()[0] == 200
            assert http.get("/guests/nas").json()["frozen_until"] is None


def test_nothing_is_frozen_while_the_daemon_stops(tmp_path: Path) -> None:
    with (
        controlled(tmp_path, "--sock", tmp_path / "two") as (daemon, http),
        fake_guest(tmp_path / "nas") as guest,
        answering(tmp_path / "two", {FREEZE: b"", THAW: b""}) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        guest.serial()
        freezing = pool.submit(post, http, "/guests/nas/freeze")
        guest.sock.sendall(guest.next_request().reply(b"").raw)
        assert freezing.result()[0] == 200
        daemon.send_signal(signal.SIGTERM)
        assert guest.next_request().command == THAW  # left unanswered, so that the stop takes a while
        status, refused = post(http, "/guests/two/freeze")
        assert (status, refused["error"]["what"]) == (503, "stopping")
        assert other.asked == []


def test_a_freeze_by_its_number_is_a_freeze_too(tmp_path: Path) -> None:
    answers = {FREEZE: b"", THAW: b"", POWEROFF: b""}
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", dict(answers)) as guest:
        assert post(http, "/guests/nas/call", command=FREEZE)[0] == 200
        assert http.get("/guests/nas").json()["frozen_until"]
        assert post(http, "/guests/nas/call", command="fs_unfreeze")[0] == 200
        assert http.get("/guests/nas").json()["frozen_until"] is None
        assert post(http, "/guests/nas/call", command=FREEZE)[0] == 200
        assert post(http, "/guests/nas/call", command=POWEROFF)[0] == 200
        assert guest.asked == [FREEZE, THAW, FREEZE, THAW, POWEROFF]
