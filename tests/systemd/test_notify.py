"""sd_notify: messages of a real daemon at a real notify socket."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from tests.serving import ENVIRONMENT, Serving, fake_guest, until
from tests.systemd.notified import notify_socket
from tests.trio_help import run
from vhostcomm.channel.guest import Guest
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.daemon.status import of_guests, of_launched
from vhostcomm.guest.evidence import Connected, Paused
from vhostcomm.systemd.notify import GATHER, RESEND_INTERVAL, STATUS_LIMIT, Notifier

BEAT = 0.1
"""Seconds between the watchdog's beats in these tests."""


def guests(path: Path, *names: str) -> Path:
    path.write_text("".join(f'[guests.{name}]\nsock = "{path.parent}/{name}"\n' for name in names))
    return path


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.slow
def test_a_daemon_reports_its_start_reloads_and_stop(tmp_path: Path, abstract: bool) -> None:
    config = guests(tmp_path / "c.toml", "one", "two")
    with notify_socket(None if abstract else tmp_path / "notify") as manager:
        with Serving("--config", config, "--control", tmp_path / "control", env=manager.environment) as daemon:
            manager.hears("READY=1")
            # Every socket accepts connections by then.
            with fake_guest(tmp_path / "one") as one, fake_guest(tmp_path / "two"), fake_guest(tmp_path / "control"):
                assert manager.next() == "STATUS=2 guests served: 2 without QEMU"
                assert one.serial()
                manager.hears("STATUS=2 guests served: 1 ready, 1 connected, not ready yet")
            manager.hears("STATUS=2 guests served: 2 without QEMU")

            before = time.monotonic_ns() // 1000
            guests(config, "one")
            daemon.send_signal(signal.SIGHUP)
            reloading, clock = manager.next().split("\n")
            assert reloading == "RELOADING=1"
            sent = int(clock.removeprefix("MONOTONIC_USEC="))
            assert before <= sent <= time.monotonic_ns() // 1000
            manager.hears("READY=1")
            assert manager.next() == "STATUS=1 guest served: 1 without QEMU"

            config.write_text("[gusts]")
            daemon.send_signal(signal.SIGHUP)
            manager.hears("RELOADING=1")
            manager.hears("READY=1")
            assert "not reloaded: " in (status := manager.next())
            assert "'gusts'" in status

            daemon.send_signal(signal.SIGTERM)
            assert manager.next() == "STOPPING=1"
            assert manager.next().startswith("STATUS=stopping: SIGTERM; ")
        assert not [message for message in manager.rest() if "WATCHDOG" in message], (
            "systemd asked for no watchdog messages"
        )


def test_a_reload_through_the_control_surface_is_reported(tmp_path: Path) -> None:
    config, control = guests(tmp_path / "c.toml", "one"), tmp_path / "control"
    with (
        notify_socket() as manager,
        Serving("--config", config, "--control", control, env=manager.environment),
        socket.socket(socket.AF_UNIX) as client,
    ):
        manager.hears("READY=1")
        client.connect(str(control))
        client.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        manager.hears("RELOADING=1")
        assert manager.next() == "READY=1"


def sticking(pipe: Path, *words: str | Path, **options: Any) -> Serving:
    """A daemon whose loop hangs after SIGUSR2 until the pipe is read to its end."""
    os.mkfifo(pipe)
    run = (
        "import runpy, signal, sys\n"
        f"def stuck_here(*_): open({str(pipe)!r}).read()\n"
        "signal.signal(signal.SIGUSR2, stuck_here)\n"
        "sys.argv[0] = 'vhostcomm'\n"
        "runpy.run_module('vhostcomm', run_name='__main__')"
    )
    daemon = Serving(*words, **options)
    at = daemon.command.index("-m")
    daemon.command[at : at + 2] = ["-c", run]
    return daemon


def stick(daemon: Serving, pipe: Path) -> int:
    """Make the daemon's loop hang. Returns the pipe's other end; closing that end resumes the loop."""
    daemon.send_signal(signal.SIGUSR2)
    found: list[int] = []

    def opened() -> bool:
        with suppress(OSError):  # ENXIO until it is being read
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    until(opened, "the reading of the pipe")
    return found[0]


@pytest.mark.slow
def test_a_stuck_loop_sends_no_watchdog_messages(tmp_path: Path) -> None:
    config = guests(tmp_path / "c.toml", "one")
    with notify_socket() as manager:
        watched = manager.environment | {"WATCHDOG_USEC": str(int(BEAT * 2e6))}
        with sticking(tmp_path / "pipe", "--config", config, "--control", "none", env=watched) as daemon:
            for _ in range(3):
                manager.hears("WATCHDOG=1")
            writer = stick(daemon, tmp_path / "pipe")
            manager.rest()
            manager.sock.settimeout(BEAT * 15)
            with pytest.raises(TimeoutError):
                [manager.next() for _ in range(3)]  # one or two may have been under way
            manager.sock.settimeout(20)
            os.close(writer)  # resumes the loop
            manager.hears("WATCHDOG=1")


@pytest.mark.slow
def test_the_watchdog_leaves_a_traceback(tmp_path: Path) -> None:
    """The watchdog sends SIGABRT, and the journal keeps what the daemon then writes."""
    config = guests(tmp_path / "c.toml", "one")
    with notify_socket() as manager:
        words = ["--config", str(config), "--control", "none"]
        watched = manager.environment | {"WATCHDOG_USEC": "60000000"}
        options: dict[str, Any] = {"env": watched, "shell": "ulimit -c 0", "expect_exit": -signal.SIGABRT}
        with sticking(tmp_path / "pipe", *words, **options) as daemon:
            manager.hears("WATCHDOG=1")
            writer = stick(daemon, tmp_path / "pipe")
            daemon.stop(signal.SIGABRT)
            os.close(writer)
    assert "stuck_here" in daemon.errors()


def test_the_watchdog_of_another_process_is_ignored() -> None:
    for pid, usec, beat in (
        (str(os.getpid()), "3000000", 1.5),
        ("", "3000000", 1.5),
        ("1", "3000000", None),
        ("", "0", None),
        ("", "soon", None),
        ("", "", None),
    ):
        environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid, "HOME": "/"}
        assert Notifier.of_environment(environment).beat == beat
        assert environment == {"HOME": "/"}, "children don't inherit the variables"
    assert Notifier.of_environment({"WATCHDOG_USEC": "3000000"}).beat is None


def fill(path: Path) -> int:
    """Send as many messages as one sender may have unread; returns their number, 0 if the socket is full for all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        for sent in itertools.count():
            try:
                filler.sendto(b"full", str(path))
            except BlockingIOError:
                return sent
    raise AssertionError


def test_a_full_notify_socket_delays_nothing_and_gets_messages_later(tmp_path: Path) -> None:
    with notify_socket(tmp_path / "notify") as manager:
        while fill(tmp_path / "notify"):
            pass
        watched = manager.environment | {"WATCHDOG_USEC": str(int(BEAT * 2e6))}
        with Serving("--sock", tmp_path / "nas", "--control", "none", env=watched):
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
            messages = [manager.hears("=") for _ in range(3)]
    assert messages[0] == "READY=1"
    assert messages[1].startswith("STATUS=1 guest served")
    assert messages[2] == "WATCHDOG=1"


def test_a_late_notify_socket_gets_the_message(tmp_path: Path) -> None:
    late = ENVIRONMENT | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with Serving("--sock", tmp_path / "nas", "--control", "none", env=late):
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
        with notify_socket(tmp_path / "notify") as manager:
            manager.hears("READY=1")


def test_a_refused_message_is_sent_again_soon_after_a_status(tmp_path: Path) -> None:
    async def check() -> None:
        notifier = Notifier(str(tmp_path / "notify"))
        async with trio.open_nursery() as nursery:
            with notify_socket(tmp_path / "notify") as manager:
                nursery.start_soon(notifier.run)
                notifier.describe = lambda: "up"
                notifier.changed()
                await trio.sleep(2 * GATHER)
                assert manager.rest() == ["STATUS=up"]
            (tmp_path / "notify").unlink()
            notifier.extend(5)
            with notify_socket(tmp_path / "notify") as manager:
                await trio.sleep(RESEND_INTERVAL)
                assert manager.rest() == ["EXTEND_TIMEOUT_USEC=5000000"]
            nursery.cancel_scope.cancel()

    run(check)


def test_a_daemon_survives_the_end_of_the_notify_socket(tmp_path: Path) -> None:
    with notify_socket(tmp_path / "notify") as manager:
        watched = manager.environment | {"WATCHDOG_USEC": str(int(BEAT * 2e6))}
        daemon = Serving("--sock", tmp_path / "nas", "--control", "none", env=watched)
        daemon.__enter__()
        manager.hears("WATCHDOG=1")
    with fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()
    daemon.__exit__(None, None, None)


@pytest.mark.parametrize("address", ["vsock:2:1234", "@", "/" + "x" * 300, "/dev/null"])
def test_invalid_notify_sockets_are_ignored(tmp_path: Path, address: str) -> None:
    environment = ENVIRONMENT | {"NOTIFY_SOCKET": address}
    words = ["--sock", str(tmp_path / "nas"), "--control", "none"]
    with Serving(*words, env=environment), fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()


def test_hostile_text_in_a_status_is_one_line(tmp_path: Path) -> None:
    """A newline in a status would be another assignment."""
    config = guests(tmp_path / "c.toml", "one")
    with (
        notify_socket() as manager,
        Serving("--config", config, "--control", "none", env=manager.environment) as daemon,
    ):
        config.write_text('["x\\nREADY=0\\nMAINPID=1"]')
        daemon.send_signal(signal.SIGHUP)
        status = manager.hears("not reloaded")
        assert "\n" not in status
        assert len(status) < 400


def test_a_paused_guest_is_named_with_its_cause() -> None:
    """At most two guests are named, with shortened causes."""

    async def main() -> None:
        guests = {}
        for name in "abcde":
            guests[name] = guest = Guest(
                name, Listen(Path("/nowhere")), HostIdentity(), GuestIdentity(), structlog.get_logger()
            )
            guest.model.take(Connected(0), 1.0)
            if name != "e":
                guest.model.take(
                    Paused("no space is left for disk /d.img (nospace)" if name == "a" else "x" * 1000, "do"), 1.0
                )
        status = of_guests(guests)
        assert status.startswith(
            "5 guests served: 1 connected, not ready yet, 4 paused (a: no space is left for disk /d.img (nospace); b: xxx"
        )
        assert status.endswith("x…; and 2 more)")
        assert len(status) < STATUS_LIMIT
        assert of_launched(guests["a"], "", runs=True) == "a: paused (no space is left for disk /d.img (nospace))"

    run(main)
