"""A real daemon: what it serves, and to which clients."""

from __future__ import annotations

import os
import random
import resource
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.captures.make_golden import FOLDER
from tests.serving import (
    ENVIRONMENT,
    TIMEOUT,
    VHOSTCOMM,
    FakeGuest,
    Serving,
    fake_guest,
    held_port,
    run_vhostcomm,
    until,
)
from vchannel import FRAME_SIZE, HostCommand, Request

SERIAL = HostCommand.GUEST_SERIAL
ZERO = "0" * 13


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_replay_of_every_capture_has_no_differences(tmp_path: Path, path: Path) -> None:
    sock = tmp_path / "guest"
    # The public boot was answered by a tool with UUIDs of its own.
    words = ["--ignore-identity"] if path.stem.startswith("boot") else []
    with Serving("--sock", sock):
        played = run_vhostcomm("capture", "replay", path, "--sock", sock, *words)
    assert played.returncode == 0, played.stdout + played.stderr
    assert " 0 differences" in played.stdout


def test_a_replay_prints_each_difference(tmp_path: Path) -> None:
    sock = tmp_path / "guest"
    with Serving("--sock", sock, "--guest-serial", "1234ABC567890"):
        played = run_vhostcomm("capture", "replay", FOLDER / "graceful-stop.jsonl", "--sock", sock)
        ignoring = run_vhostcomm(
            "capture", "replay", FOLDER / "graceful-stop.jsonl", "--sock", sock, "--ignore-identity"
        )
    assert played.returncode == 1
    assert "3  GUEST_SERIAL data: '0000000000000\\x00' in the capture, '1234ABC567890\\x00' served" in played.stdout
    assert ignoring.returncode == 0, ignoring.stdout


def test_a_bare_uuid_is_a_socket_in_the_runtime_directory(short_path: Path) -> None:
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path / "run")}
    with Serving("--sock", uuid, env=environment):
        sock = short_path / "run" / uuid
        assert stat.S_IMODE(sock.lstat().st_mode) == 0o600
        assert stat.S_IMODE(sock.parent.stat().st_mode) == 0o700
        with fake_guest(sock) as guest:
            assert guest.ask(HostCommand.GUEST_UUID) == uuid.encode() + b"\0"
    assert not any((short_path / "run").iterdir())


@pytest.mark.parametrize("size", [1, 63, 64, 2048, 4095, 5000])
@pytest.mark.slow
def test_frames_in_pieces_are_answered(tmp_path: Path, size: int) -> None:
    with Serving("--sock", tmp_path / "guest"), fake_guest(tmp_path / "guest") as guest:
        asked = [Request.of(SERIAL) for _ in range(3)]
        stream = b"".join(map(guest.connection.send, asked))
        for place in range(0, len(stream), size):
            guest.sock.sendall(stream[place : place + size])
        assert [guest.answer(each) for each in asked] == [ZERO.encode() + b"\0"] * 3


def test_pipelined_frames_are_answered(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "guest"), fake_guest(tmp_path / "guest") as guest:
        asked = [Request.of(SERIAL) for _ in range(16)]
        guest.sock.sendall(b"".join(map(guest.connection.send, asked)))
        assert {guest.answer(each) for each in asked} == {ZERO.encode() + b"\0"}


def test_hostile_frames_harm_nobody(tmp_path: Path) -> None:
    dice = random.Random(7)
    good = Request.of(SERIAL).raw
    with (
        Serving("--sock", tmp_path / "bad", "--sock", tmp_path / "other", "--frame-rate", "0") as daemon,
        fake_guest(tmp_path / "bad") as bad,
        fake_guest(tmp_path / "other") as other,
    ):
        for _ in range(300):
            frame = bytearray(dice.randbytes(FRAME_SIZE) if dice.random() < 0.5 else good)
            frame[32:36] = b"\1\0\0\0"
            place = dice.randrange(32, 64, 4)
            frame[place : place + 4] = dice.choice(
                [b"\xff\xff\xff\xff", b"\xc1\x0f\0\0", b"\0\0\0\x80", dice.randbytes(4)]
            )
            bad.sock.sendall(frame)
            assert other.serial() == ZERO
        bad.sock.sendall(dice.randbytes(70_001))
        bad.send(SERIAL)  # noise that looks like a frame costs at most one more
        bad.send(SERIAL)
        assert bad.serial() == ZERO
        assert daemon.process.poll() is None


def test_unknown_commands_are_logged_up_to_a_limit(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "guest", "--frame-rate", "0") as daemon, fake_guest(tmp_path / "guest") as guest:
        for number in range(1000, 1200):
            assert guest.ask(number) == b""
        assert guest.serial() == ZERO
        daemon.event("guest asked", command="5 GUEST_SERIAL")
    unknown = [line for line in daemon.log if line["event"].startswith("unknown command from guest")]
    assert len(unknown) == 64


def test_one_live_connection_per_guest(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "guest") as daemon, fake_guest(tmp_path / "guest") as first:
        assert first.serial() == ZERO
        with fake_guest(tmp_path / "guest") as second:
            assert second.at_end()
        daemon.event("connection refused", guest="guest", pid=os.getpid())
        assert first.serial() == ZERO
        first.sock.close()
        daemon.event("guest gone")
        with fake_guest(tmp_path / "guest") as third:
            assert third.serial() == ZERO


def test_a_restarted_qemu_is_not_refused(tmp_path: Path) -> None:
    """The old connection has ended, even if the daemon has not read its end yet."""
    with Serving("--sock", tmp_path / "guest") as daemon:
        for _ in range(50):
            with fake_guest(tmp_path / "guest") as guest:
                assert guest.serial() == ZERO
    assert not [line for line in daemon.log if line["event"] == "connection refused"]


def test_daemon_reconnects_to_a_socket_of_qemu(tmp_path: Path) -> None:
    """QEMU is the server. It starts after the daemon, ends, and starts again."""
    path = tmp_path / "qemu"
    with Serving("--sock", f"connect:{path}") as daemon:
        daemon.event("waiting for QEMU's socket", why="No such file or directory")
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.bind(str(path))
                server.listen(1)
                server.settimeout(TIMEOUT)
                sock, _ = server.accept()
                with sock:
                    assert FakeGuest(sock).serial() == ZERO
            path.unlink()
            daemon.event("guest gone")
        daemon.event("waiting for QEMU's socket")


@pytest.mark.slow
def test_a_port_that_failed_is_reopened(tmp_path: Path) -> None:
    """A patch plants a fault into the first run of the port."""
    fail = (
        "import runpy, sys\nfrom vhostcomm.channel.port import Port\ngenuine = Port.run\n"
        "async def run(*_, **__):\n    Port.run = genuine\n    raise RuntimeError('planted')\nPort.run = run\n"
        "sys.argv[0] = 'vhostcomm'\nrunpy.run_module('vhostcomm', run_name='__main__')"
    )
    daemon = Serving("--sock", tmp_path / "nas", "--control", "none")
    daemon.command = [sys.executable, "-c", fail, *daemon.command[len(VHOSTCOMM) :]]
    with daemon:
        assert "planted" in str(daemon.event("internal error, reopening the port; please report it"))
        daemon.event("waiting for QEMU")
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial() == ZERO
        daemon.log[:] = [line for line in daemon.log if "planted" not in str(line)]  # else it fails the test


def test_tcp_connections_are_probed_by_the_kernel(tmp_path: Path) -> None:
    with (
        held_port() as port,
        Serving("--sock", f"tcp:127.0.0.1:{port}", cwd=tmp_path) as daemon,
        fake_guest(("127.0.0.1", port)) as guest,
    ):
        assert guest.serial() == ZERO
        assert str(daemon.event("guest connected", guest=f"127.0.0.1-{port}")["peer"]).startswith("127.0.0.1:")
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        (timer,) = (row[5] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01")
        assert timer.startswith("02:"), "the kernel asks whether the peer is still there"


@pytest.mark.slow
def test_activated_socket_is_served_and_not_removed(tmp_path: Path) -> None:
    """Like systemd, a starter passes a listening socket as file descriptor 3, with its name."""
    path = tmp_path / "activated"
    starter = (
        "import os,socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); os.dup2(s.fileno(),3);"
        "os.environ.update(LISTEN_PID=str(os.getpid()),LISTEN_FDS='1',LISTEN_FDNAMES=sys.argv[2]);"
        "os.set_inheritable(3,True); os.execv(sys.executable,[sys.executable,'-m','vhostcomm','serve','--log-format','json'])"
    )
    for name, guest_name in (("nas", "nas"), ("vhostcomm.socket", "activated")):
        path.unlink(missing_ok=True)
        daemon = Serving()
        daemon.command = [sys.executable, "-c", starter, str(path), name]
        with daemon, fake_guest(path) as guest:
            assert guest.serial() == ZERO
            daemon.event("guest connected", guest=guest_name)
        assert path.exists(), "systemd's socket is not ours to remove"


def test_a_guest_cannot_flood_the_log_or_the_memory(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--frame-rate", "0") as daemon, fake_guest(tmp_path / "nas") as guest:
        for number in range(3000):
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            guest.send(10_000 + number, needs_response=False)
        assert guest.serial() == ZERO
    assert len(daemon.log) < 150
    assert any("lines_left_out" in line for line in daemon.log) or len(daemon.log) < 120


def test_a_dead_connection_with_unread_data_makes_room(tmp_path: Path) -> None:
    """QEMU restarted while its guest was read slowly."""
    with Serving("--sock", tmp_path / "nas", "--frame-rate", "1") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            for _ in range(20):
                guest.send(HostCommand.GUEST_POWER, needs_response=False)
            daemon.event("guest sends too fast, reading more slowly")
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial() == ZERO


@pytest.mark.slow
def test_a_thousand_guests(tmp_path: Path) -> None:
    """All in one process, started with a soft limit of open files that is far too low for them."""
    count = 1000
    serials = [f"{number:013d}" for number in range(1, count + 1)]
    config = tmp_path / "many.toml"
    config.write_text(
        "".join(
            f'[guests.g{place}]\nsock = "{tmp_path}/g{place}"\nserial = "{each}"\n'
            for place, each in enumerate(serials)
        )
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * count)), hard))
    try:
        guests = []
        with Serving("--config", config, shell="ulimit -Sn 256", expect_exit=None) as daemon, ExitStack() as held:
            for place in range(count):
                sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.connect(str(tmp_path / f"g{place}"))
                guests.append(FakeGuest(sock))
            asked = [guest.send(SERIAL) for guest in guests]
            answers = [guest.answer(each) for guest, each in zip(guests, asked, strict=True)]
            assert answers == [each.encode() + b"\0" for each in serials]
            assert daemon.stop() == 0
            assert all(guest.at_end() for guest in guests)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [each.name for each in tmp_path.iterdir()] == ["many.toml"]


def test_connection_waits_for_a_descriptor(tmp_path: Path) -> None:
    """A connection waits for a descriptor, with one message, and is served when there is one."""
    with Serving("--sock", f"nas={tmp_path / 'nas'}", "--control", "none") as daemon:
        pid = daemon.process.pid
        taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        with fake_guest(tmp_path / "nas") as guest:
            short = daemon.event("connection waits for a descriptor or memory")
            assert short["why"] == "Too many open files"
            assert "LimitNOFILE" in short["remedy"]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
            assert guest.serial() == ZERO
    assert [line["event"] for line in daemon.log].count("connection waits for a descriptor or memory") == 1


@pytest.mark.slow
def test_no_thread_of_an_idle_daemon_wakes_up(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "a", "--sock", tmp_path / "b") as daemon, fake_guest(tmp_path / "a") as guest:
        assert guest.serial() == ZERO
        daemon.event("guest asked")

        def switches() -> int:
            statuses = Path(f"/proc/{daemon.process.pid}/task").glob("*/status")
            lines = [line for status in statuses for line in status.read_text().splitlines()]
            return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

        def quiet() -> bool:
            before = switches()
            time.sleep(0.1)
            return switches() == before

        until(quiet, "quiet")
        before = switches()
        time.sleep(1.5)  # that nothing happens shows only in time
        assert switches() == before


def test_serve_without_guests_is_rejected() -> None:
    ended = run_vhostcomm("serve")
    assert ended.returncode == 2
    assert "add [guests.NAME] to the --config file, or give --sock or --watch" in ended.stderr


def test_python_dash_m_is_the_script() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "vhostcomm", "--version"], stdout=subprocess.PIPE, check=True
    ).stdout
    assert printed.startswith(b"vhostcomm 0.")
