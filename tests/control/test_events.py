"""Events for a client that reads slowly, over HTTP."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.control.controlled import controlled
from tests.serving import PATIENCE, fake_guest
from vchannel import HostCommand

REBOOTS = 4000
"""Their events are more than the kernel holds for a client that reads little."""

READ_EVERY = 200
"""Reboots between two reads: a client that reads nothing at all for ten seconds is disconnected."""


@pytest.mark.slow
def test_reboots_of_one_guest_push_out_no_event_of_another(tmp_path: Path) -> None:
    with (
        controlled(tmp_path, "--sock", tmp_path / "loud") as (daemon, _),
        socket.socket(socket.AF_UNIX) as slow,
        fake_guest(tmp_path / "loud") as loud,
    ):
        slow.settimeout(PATIENCE)
        slow.connect(str(tmp_path / "control"))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = b""
        while b": what happens" not in begun:
            begun += slow.recv(4096)
        loud.serial()

        def reboot() -> None:
            nonlocal begun
            for number in range(REBOOTS):
                loud.tell(HostCommand.GUEST_POWER, needs_response=False)
                loud.serial()
                if number % READ_EVERY == 0:
                    begun += slow.recv(4096)

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
    """All events up to the quiet guest's last. Lines are not cut by the chunks that a daemon sends."""
    received = begun
    while b'"guest": "nas", "event": "gone"' not in received or not received.endswith(b"\n\r\n"):
        data = slow.recv(1 << 20)
        assert data, "the stream ended"
        received += data
    lines = received.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
