"""Sockets that systemd holds. Its own systemd-socket-activate hands them over, as the socket units do."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, LogReader, Serving, end, fake_guest, until
from vhostcomm.systemd import units

pytestmark = pytest.mark.needs("systemd-socket-activate")

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"


@contextmanager
def activating(sock: Path, name: str, *words: str | Path, **environment: str) -> Iterator[LogReader]:
    """systemd's end of an activation: it binds, waits for the first connection, and then becomes the daemon."""
    command = [*VHOSTCOMM, "serve", "--log-format", "json", "--control", "none", *map(str, words)]
    holder = ["systemd-socket-activate", f"--listen={sock}", f"--fdname={name}"]
    holder += [f"--setenv={variable}" for variable in environment]
    daemon = LogReader([*holder, *command])
    daemon.process = subprocess.Popen(
        daemon.command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert daemon.process.stdout
    daemon.follow(daemon.process.stdout)
    try:
        until(lambda: takes_connections(sock), "the activation's socket")
        yield daemon
        daemon.process.send_signal(signal.SIGTERM)
        status = daemon.process.wait(TIMEOUT)
    finally:
        end(daemon.process)
        daemon.finish()
    assert status == 0


def takes_connections(sock: Path) -> bool:
    """Whether a process listens at a socket. A connection would start the daemon, and its file alone proves nothing."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    # Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
    return any(line.split()[3] == "00010000" and line.endswith(f" {sock}") for line in lines)


def fdname(unit: str, guest: str) -> str:
    (name,) = re.findall(r"^FileDescriptorName=(.*)$", units.text(unit), re.MULTILINE)
    return str(name).replace("%i", guest)


def test_a_socket_with_a_name_serves_that_guest_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[guests.nas]\nsock = "{tmp_path}/own"\nserial = "{"A" * 13}"\n')
    held = tmp_path / "held"
    with activating(held, fdname(units.SOCKET, "nas"), "--config", config) as daemon:
        with fake_guest(held) as guest:  # it starts the daemon, and waits for it
            assert guest.serial() == "A" * 13
        daemon.event("guest connected", guest="nas")
        assert not (tmp_path / "own").exists(), "systemd's socket replaces the one in the file"
        config.write_text(config.read_text().replace("A" * 13, "B" * 13))
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["changed"] == 1
        with fake_guest(held) as guest:
            assert guest.serial() == "B" * 13


def test_a_name_without_a_guest_in_the_file_causes_a_warning(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[guests.nas]\nsock = "{tmp_path}/own"\nserial = "{"A" * 13}"\n')
    held = tmp_path / "held"
    with activating(held, fdname(units.SOCKET, "nsa"), "--config", config) as daemon:
        with fake_guest(held) as guest:
            assert guest.serial() == "0" * 13
        assert (
            "'nsa', but the file has no such guest, only nas"
            in daemon.event("probable mistake in the configuration")["why"]
        )


def test_a_socket_with_a_uuid_serves_that_guest() -> None:
    """The folder's name is short, because the path of a socket with the UUID has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vt-") as made:
        held, own = Path(made, "held"), Path(made, "run")
        with activating(held, fdname(units.SOCKET_ONE, UUID), "--sock", UUID, RUNTIME_DIRECTORY=str(own)) as daemon:
            with fake_guest(held) as guest:
                assert guest.serial()
            daemon.event("guest connected", guest=UUID)
            assert not own.exists()


def test_a_killed_daemons_socket_still_accepts(tmp_path: Path) -> None:
    """The next daemon serves a guest that connected while there was none."""
    path = tmp_path / "held"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()

        def serving(expect_exit: int) -> Serving:
            daemon = Serving("--control", "none", expect_exit=expect_exit, pass_fds=[held.fileno()])
            starter = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update("
                "LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='nas'); os.execv(sys.argv[2], sys.argv[2:])"
            )
            daemon.command = [sys.executable, "-c", starter, str(held.fileno()), *daemon.command]
            return daemon

        with serving(-signal.SIGKILL) as first, fake_guest(path) as guest:
            assert guest.serial()
            first.stop(signal.SIGKILL)
            assert guest.at_end()
        with fake_guest(path) as waiting, serving(0) as second:
            assert waiting.serial()
            second.event("guest connected", guest="nas")
