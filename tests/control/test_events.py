"""Events for a client that reads slowly, over HTTP."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.control.controlled import controlled
from tests.serving import TIMEOUT, fake_guest
from vchannel import HostCommand
from vhostcomm.control.events import STREAM_LIMIT
from vhostcomm.guest.events import GuestEvent

REBOOTS = 4000
"""Enough for more events than the kernel buffers for a client that reads little."""

READ_EVERY, READ = 50, 1024
"""Reboots between two reads, and the bytes of one: a client that reads nothing at all for ten seconds is disconnected."""


@pytest.mark.slow
def test_reboots_of_one_guest_push_out_no_event_of_another(tmp_path: Path) -> None:
    with (
        controlled(tmp_path, "--sock", tmp_path / "loud") as (daemon, _),
        socket.socket(socket.AF_UNIX) as slow,
        fake_guest(tmp_path / "loud") as loud,
    ):
        slow.settimeout(TIMEOUT)
        slow.connect(str(tmp_path / "control"))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = b""
        while b": what happens" not in begun:
            begun += slow.recv(4096)
        loud.serial()

        def reboot() -> None:
            nonlocal begun
            for number in range(REBOOTS):
                loud.send(HostCommand.GUEST_POWER, needs_response=False)
                loud.serial()
                if number % READ_EVERY == 0:
                    begun += slow.recv(READ)

        reboot()
        with fake_guest(tmp_path / "nas") as quiet:
            quiet.serial()
        daemon.event("guest gone", guest="nas")
        reboot()
        found = events_until_gone(slow, begun)
    assert [each["event"] for each in found if each["guest"] == "nas"] == ["connected", "ready", "gone"]
    assert sum(each.get("times", 1) for each in found if each["event"] == "rebooted") <= 2 * REBOOTS
    assert max(each.get("times", 1) for each in found if each["guest"] == "loud") > 1
    assert not [each for each in found if each["event"] == "lost"]


def events_until_gone(slow: socket.socket, begun: bytes) -> list[dict[str, Any]]:
    """All events up to the last one of the quiet guest. A daemon's chunks contain whole lines."""
    received = begun
    while b'"guest": "nas", "event": "gone"' not in received or not received.endswith(b"\n\r\n"):
        data = slow.recv(1 << 20)
        assert data, "the stream ended"
        received += data
    lines = received.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_frames_of_one_guest_follow_its_events(tmp_path: Path) -> None:
    with controlled(tmp_path, "--sock", tmp_path / "two") as (_, http), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        with http.stream("GET", "/events?frames=nas") as stream, fake_guest(tmp_path / "two") as two:
            lines = stream.iter_lines()
            assert next(lines).startswith(": what happens")
            two.serial()
            guest.ask(HostCommand.HOST_MAC)
            guest.send(HostCommand.GUEST_POWER, b"up\x1b\0", needs_response=False)
            guest.sock.sendall(b"\xff" * 4096)
            shown: list[dict[str, Any]] = []
            counted = 0
            while not shown or shown[-1]["kind"] != "skipped":
                line = next(lines)
                found = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if "frames" in found:
                    assert found["guest"] == "nas"
                    shown += found["frames"]
                    counted += found["to_host"]
    assert [(each["direction"], each["by"], each["kind"], each["name"]) for each in shown[:3]] == [
        ("guest>host", "guest", "question", "host_mac"),
        ("host>guest", "guest", "answer", "host_mac"),
        ("guest>host", "guest", "notice", "guest_power"),
    ]
    assert shown[0]["id"] == shown[1]["id"]
    assert [each["text"] for each in shown[1:3]] == ["00:00:00:00:00:00", "up\\x1b"]
    assert counted == 2


def test_frames_of_an_unknown_guest_are_not_found(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http):
        got = http.get("/events?frames=other")
    assert (got.status_code, got.json()["error"]["what"]) == (404, "no such guest")


def test_a_client_that_leaves_observes_no_more(tmp_path: Path) -> None:
    """More streams than the limit, one after another."""
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        for _ in range(STREAM_LIMIT + 1):
            with http.stream("GET", "/events?frames=nas") as stream:
                assert next(stream.iter_lines()).startswith(": what happens")
                guest.ask(HostCommand.HOST_MAC)


def test_names_of_events_stay_those_of_the_api() -> None:
    """Clients rely on them."""
    assert {each.value for each in GuestEvent} == {
        "connected", "ready", "silent", "paused", "resumed", "rebooted", "stopping", "frozen", "thawed", "gone",
    }  # fmt: skip
