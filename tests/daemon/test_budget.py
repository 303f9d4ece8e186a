"""The log lines that one guest can cause are limited, and other guests lose neither lines nor events."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from tests.control.controlled import client
from tests.qemu.peers import Peer
from tests.serving import Serving, fake_guest
from tests.trio_help import run_in_real_time
from vchannel import HostCommand
from vhostcomm.channel.guest import Guest
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.daemon.monitor_evidence import follow
from vhostcomm.launcher.hooks import Hooks
from vhostcomm.log.logs import LimitedLog

# -- log lines


def collected() -> tuple[Any, list[dict[str, Any]]]:
    """A log, and its messages."""
    lines: list[dict[str, Any]] = []

    def take(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
        lines.append(dict(event) | {"level": level})
        raise structlog.DropEvent

    wrapper = structlog.make_filtering_bound_logger(20)
    return structlog.wrap_logger(structlog.PrintLogger(), processors=[take], wrapper_class=wrapper).bind(), lines


def test_lines_of_one_source_are_limited_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log, lines = collected()
    limited, other = LimitedLog(log), LimitedLog(log)
    for number in range(12_000):
        limited.warning("QEMU reported", text=str(number))
    assert [line["text"] for line in lines] == [str(number) for number in range(100)]
    other.info("of another source")
    assert lines[-1]["event"] == "of another source"
    now += 1
    limited.warning("QEMU reported", text="again")
    limited.warning("QEMU reported", text="too early")
    assert lines[-1] == {"event": "QEMU reported", "text": "again", "lines_left_out": 11_900, "level": "warning"}


def test_a_repeated_event_is_logged_as_new_after_a_quiet_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log, lines = collected()
    limited = LimitedLog(log)
    for pause in (0, 1, 59, 61, 1):
        now += pause
        limited.repeated("frame refused")
    assert [line["times"] for line in lines] == [1, 1]


def test_log_lines_of_a_storm_of_qmp_events_are_limited(tmp_path: Path) -> None:
    """A guest can reset or suspend its machine, and cause failed writes, as often as it likes."""
    log, lines = collected()
    storm = [
        {"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}}
        for name, data in (
            ("RESET", {"guest": True, "reason": "guest-reset"}),
            ("BLOCK_IO_ERROR", {"device": "data", "action": "report", "reason": "nospace"}),
            ("RESUME", {}),
        )
    ] * 1000  # fmt: skip

    async def main() -> None:
        guest = Guest("nas", Listen(tmp_path / "nas"), HostIdentity(), GuestIdentity(), log)
        _, monitor = follow(str(tmp_path / "qmp"), lambda: guest, trio.CancelScope())
        guest.connected()
        async with trio.open_nursery() as nursery:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(tmp_path / "qmp"))
            listener.listen()
            nursery.start_soon(monitor)
            stream = await trio.SocketListener(trio.socket.from_stdlib_socket(listener)).accept()
            listener.close()
            peer = Peer(stream)
            await peer.greet()
            await peer.answer({"status": "running", "running": True})
            await peer.say(*storm, {**storm[0], "event": "STOP", "data": {}})
            await peer.answer({"status": "paused", "running": False})  # asked after all events are reported
            nursery.cancel_scope.cancel()
            await stream.aclose()

    run_in_real_time(main)
    assert {"machine reset", "disk error reported to the guest"} <= {line["event"] for line in lines}
    assert len(lines) < 200


def test_log_lines_of_a_storm_of_hooks_are_limited() -> None:
    log, lines = collected()

    async def main() -> None:
        hooks = Hooks([("rebooted", "/nowhere/hook")], {}, log)
        async with trio.open_nursery() as nursery:
            hooks.nursery = nursery
            for _ in range(1000):
                hooks.happened("rebooted")
            await hooks.finish(60)
            nursery.cancel_scope.cancel()

    run_in_real_time(main)
    assert "hook skipped" in {line["event"] for line in lines}
    assert len(lines) < 200


@pytest.mark.slow
def test_log_lines_of_a_storm_of_connections_are_limited(tmp_path: Path) -> None:
    """Each connection asks, sends junk and ends. Another guest is still logged."""
    with Serving("--sock", tmp_path / "bad", "--sock", tmp_path / "good") as daemon:
        for _ in range(300):
            with fake_guest(tmp_path / "bad") as guest:
                assert guest.serial()
                guest.sock.sendall(b"junk" * 1024)
        with fake_guest(tmp_path / "good") as guest:
            assert guest.serial()
            daemon.event("guest ready", guest="good")
    storm = [line for line in daemon.log if line.get("guest") == "bad"]
    assert len(storm) < 260, "a hundred each of connections and of frames, and one a second"
    assert sum(line.get("lines_left_out", 0) for line in storm) + len(storm) > 100


# -- events of a guest's state


@pytest.mark.slow
def test_no_events_are_lost_while_a_guest_flaps(tmp_path: Path) -> None:
    """The guest starts a thousand times over 20 connections. Its own events and another guest's events are complete."""
    connections, boots = 20, 50

    def flap() -> None:
        for _ in range(connections):
            with fake_guest(tmp_path / "bad") as guest:
                for _ in range(boots):
                    guest.send(HostCommand.GUEST_POWER, needs_response=False)
                    guest.send(HostCommand.GUEST_TIMESTAMP, b"1\0", needs_response=False)
                    guest.serial()

    words: list[str | Path] = [
        "--sock",
        tmp_path / "bad",
        "--sock",
        tmp_path / "good",
        "--control",
        tmp_path / "control",
    ]
    with (
        Serving(*words) as daemon,
        client(tmp_path / "control") as http,
        http.stream("GET", "/events") as stream,
        ThreadPoolExecutor(1) as pool,
    ):
        flapping = pool.submit(flap)
        for _ in range(connections):
            with fake_guest(tmp_path / "good") as guest:
                assert guest.serial()
                guest.send(HostCommand.GUEST_POWER, needs_response=False)
                assert guest.serial()
        flapping.result()
        seen: Counter[tuple[str, str]] = Counter()
        for line in stream.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert "lost" not in event, event
                seen[event["guest"], event["event"]] += event.get("times", 1)
            if seen["good", "gone"] == seen["bad", "gone"] == connections:
                break
        with client(tmp_path / "control") as another:
            bad = another.get("/guests/bad").json()
    assert {what: times for (name, what), times in seen.items() if name == "good"} == dict.fromkeys(
        ("connected", "ready", "rebooted", "gone"), connections
    )
    assert seen["bad", "rebooted"] == connections * (boots - 1)
    assert (bad["state"], bad["starts_seen"]) == ("absent", connections * boots)
    lines = [line for line in daemon.log if line.get("guest") == "bad"]
    assert len(lines) < 260, "a hundred each of connections and of frames, and one a second"
