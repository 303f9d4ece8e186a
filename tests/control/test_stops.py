"""Shutdowns that are waited for, ignored or not sent, and the daemon's own stop."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.control.controlled import answering, controlled, post
from tests.serving import fake_guest, until
from vchannel import HostCommand
from vhostcomm.channel.calls import OUTSTANDING_LIMIT

IP, UPTIME, POWEROFF, REBOOT, INFO, FREEZE, THAW = 2, 5, 6, 8, 10, 14, 15


def test_a_shutdown_waits_for_the_end_of_the_connection(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (daemon, http),
        answering(tmp_path / "nas", {POWEROFF: lambda: None}),
    ):
        status, done = post(http, "/guests/nas/shutdown", wait=20)
        assert (status, done["gone"], done["how"]) == (200, True, "QEMU closed the connection")
        asked = daemon.event("stop requested", guest="nas", how="power-off")
        assert f"pid {os.getpid()}" in asked["by"]
        assert daemon.event("guest gone")["stop_by"] == asked["by"]
        stop = http.get("/guests/nas").json()["stop"]
        assert (stop["by"], stop["how"]) == (asked["by"], "power-off")


def test_a_shutdown_fails_if_the_guest_stays(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {POWEROFF: b""}):
        status, done = post(http, "/guests/nas/shutdown")
        assert (status, done["answered"], done["gone"]) == (200, True, False)
        status, done = post(http, "/guests/nas/shutdown", wait=0.2)
        assert status == 504
        assert "answered that it powers off, and after 0.2 s its QEMU is still connected" in done["error"]["why"]


def test_a_shutdown_times_out_without_an_answer(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {}):
        assert post(http, "/guests/nas/shutdown", timeout=0.1)[0] == 504
        status, done = post(http, "/guests/nas/shutdown", wait=0.2)
        assert status == 504
        assert "it did not answer" in done["error"]["why"]


def test_a_stop_that_was_not_sent_is_not_shown_as_requested(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (_, http),
        ThreadPoolExecutor(OUTSTANDING_LIMIT) as pool,
        fake_guest(tmp_path / "nas") as guest,
    ):
        guest.serial()
        hanging = [pool.submit(post, http, "/guests/nas/thaw", timeout=600) for _ in range(OUTSTANDING_LIMIT)]
        for _ in hanging:
            assert guest.next_request().command == THAW
        assert post(http, "/guests/nas/shutdown")[0] == 429
        assert http.get("/guests/nas").json()["stop"] is None
        guest.sock.close()
        assert {each.result()[0] for each in hanging} == {502}


def test_a_stop_answers_waiting_clients(tmp_path: Path) -> None:
    with (
        controlled(tmp_path) as (daemon, http),
        answering(tmp_path / "nas", {POWEROFF: b""}) as guest,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(post, http, "/guests/nas/shutdown", wait=60)
        until(lambda: guest.asked, "the call")
        daemon.send_signal(signal.SIGTERM)
        status, body = waiting.result()
        assert (status, body["error"]["what"]) == (502, "connection lost")
        assert "the daemon stops" in body["error"]["why"]


def test_a_stop_of_the_daemon_reports_no_guest_as_gone(tmp_path: Path) -> None:
    """The guest's QEMU still runs: a power-off that was only asked for proves nothing."""
    with controlled(tmp_path) as (daemon, http), fake_guest(tmp_path / "nas") as guest, ThreadPoolExecutor(1) as pool:
        guest.serial()
        stopping = pool.submit(post, http, "/guests/nas/shutdown", timeout=20)
        guest.until_asked(POWEROFF)
        daemon.stop()
        status, body = stopping.result()
        assert (status, body["error"]["what"]) == (502, "connection lost"), body
        assert body["error"]["remedy"] == "check whether its QEMU still runs"


@pytest.mark.slow
def test_a_power_off_that_a_reboot_has_lost_is_asked_again(tmp_path: Path) -> None:
    """The daemon does not wait for the lost answer."""
    with controlled(tmp_path) as (daemon, http), fake_guest(tmp_path / "nas") as guest, ThreadPoolExecutor(1) as pool:
        guest.serial()
        stopping = pool.submit(post, http, "/guests/nas/shutdown", wait=600)
        for _ in range(2):
            guest.until_asked(POWEROFF)  # which is left unanswered
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            guest.send(HostCommand.GUEST_SERIAL)
        guest.until_asked(POWEROFF)
        guest.sock.close()
        status, done = stopping.result()
        assert (status, done["answered"], done["gone"]) == (200, False, True), done
        assert daemon.event("guest gone")["stop"] == "power-off"


@pytest.mark.slow
def test_a_guest_that_starts_again_and_again_is_asked_once_a_second(tmp_path: Path) -> None:
    with controlled(tmp_path) as (daemon, http), fake_guest(tmp_path / "nas") as guest, ThreadPoolExecutor(1) as pool:
        guest.serial()
        stopping = pool.submit(post, http, "/guests/nas/shutdown", wait=1.5)
        while not stopping.done():
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            guest.serial()
        status, body = stopping.result()
        assert (status, body["error"]["what"]) in {(502, "rebooted"), (504, "still there")}, body
    assert 1 <= len([line for line in daemon.log if line["event"] == "stop requested"]) <= 3
