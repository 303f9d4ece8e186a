"""A guest whose network is passt."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.e2e.launched import BOOT_TIMEOUT, ROOT, Console, Images, Launched
from tests.needs import need
from tests.serving import ENVIRONMENT, held_port, started, until
from vhostcomm.errors import QemuError
from vhostcomm.qemu.machine import Machine, PasstNet
from vhostcomm.qemu.net_argv import passt_socket
from vhostcomm.qemu.passt import connected


@pytest.fixture
def passt() -> None:
    """Skip the test unless passt is installed and can isolate itself, which it can't in a chroot."""
    need("passt")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            ["passt", "--quiet", "--fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            check=False,
        )
    if done.returncode:
        pytest.skip(f"passt does not work here: {done.stderr.decode()[-200:]}")


def with_passt(images: Images, port: int) -> list[str]:
    words = images.direct(listen=5000)
    words[words.index("--net") + 1] = "passt"
    return [*words, "--forward", f"{port}:5000"]


def answer(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), BOOT_TIMEOUT) as client:
        client.sendall(b"\n")  # Debian 12's passt confirms the guest's end of the handshake with the first data only
        return client.recv(100)


def passt_of(port: int) -> int:
    """Return the process id of the passt that forwards a port."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"passt" in words[0] and b"127.0.0.1/%d:5000" % port in words:
                found.append(int(process.name))
    (pid,) = found
    return pid


def is_open(port: int) -> bool:
    """Return whether a program listens on the port, without a connection to the guest."""
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


@pytest.mark.usefixtures("passt")
def test_a_guest_gets_its_address_from_passt_and_is_reached(tmp_path: Path, images: Images) -> None:
    with held_port() as port:
        with Launched(tmp_path, *with_passt(images, port)) as run:
            run.console.says("lease of 10.0.2.15 obtained")
            run.console.says("network: listening on 5000")
            assert answer(port) == b"the stand-in guest\n"
            run.ready()
        # passt ends with QEMU.
        until(lambda: not is_open(port), "passt's end")


@pytest.mark.usefixtures("passt")
def test_the_end_of_passt_is_reported(tmp_path: Path, images: Images) -> None:
    with held_port() as port, Launched(tmp_path, *with_passt(images, port), expect_exit=None) as run:
        run.event("QEMU runs")
        os.kill(passt_of(port), signal.SIGKILL)
        run.event("passt ended, the guest has no network until its next start")
        run.stop_at_once()


@pytest.mark.usefixtures("passt")
def test_passt_ends_with_a_killed_launcher(tmp_path: Path, images: Images) -> None:
    with held_port() as port:
        with Launched(tmp_path, *with_passt(images, port), expect_exit=None) as run:
            run.event("QEMU runs")
            assert is_open(port)
            run.process.kill()
            run.ends()
        until(lambda: not is_open(port), "passt's end")


@pytest.mark.usefixtures("passt")
def test_the_printed_commands_make_the_same_network(tmp_path: Path, images: Images) -> None:
    console = Console(tmp_path / "console")
    with held_port() as port:
        words = [*with_passt(images, port), "--sock", str(tmp_path / "none"), "--guest", f"vdsm-{port}"]
        shown = subprocess.run(
            [sys.executable, str(ROOT / "vdsm_run.py"), *words, "--serial-console", str(console.path), "--dry-run"],
            env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        passt, separator, qemu = shown.partition(" && \\\n")
        assert separator
        try:
            with started(["sh", "-c", f"{passt} && exec {qemu}"], stdin=subprocess.DEVNULL):
                console.says("network: listening on 5000")
                assert answer(port) == b"the stand-in guest\n"
            until(lambda: not is_open(port), "passt's end")
        finally:
            Path(passt_socket(f"vdsm-{port}")).unlink(missing_ok=True)  # passt does not remove its socket


def test_a_port_that_is_in_use(tmp_path: Path, images: Images) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = Launched(tmp_path, *with_passt(images, port))
        done = subprocess.run(run.command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr


def test_failure_of_passt_is_reported_with_its_reason(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs that make passt fail differ between its versions."""
    program = tmp_path / "passt"
    program.write_text("#!/bin/sh\necho External interface not usable; echo Failed to send 31 bytes to syslog; exit 1")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with held_port() as port:
        run = Launched(tmp_path, *with_passt(images, port))
        done = subprocess.run(run.command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "passt can't connect the guest: External interface not usable; use --net user\n" in done.stderr


def test_a_missing_passt_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(Machine(net=PasstNet())):
            raise AssertionError

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QemuError, match="passt is not installed; install the package passt, or use --net user"):
        trio.run(main)
