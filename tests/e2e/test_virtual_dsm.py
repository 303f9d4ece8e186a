"""The scripts of the vdsm/virtual-dsm container, from a checkout, with our `qemu-host` instead of the original.

``VIRTUAL_DSM=checkout make virtual-dsm``. The scripts are unchanged; container/base.sh replaces the parts of the
container's base image that they call. A real QEMU boots the stand-in guest.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from attrs import define, field

from tests.e2e.launched import BOOT_TIMEOUT, ROOT, Images
from tests.serving import ENVIRONMENT, end, started, until

HERE: Final = Path(__file__).parent / "container"
CHECKOUT: Final = os.environ.get("VIRTUAL_DSM", "")
PROGRAM: Final = Path(os.environ.get("VHOSTCOMM_ONEFILE", ROOT / "dist")) / "qemu-host"

THEIRS: Final = ("entry.sh", "serial.sh", "power.sh", "config.sh", "finish.sh", "print.sh", "check.sh")
EMPTY: Final = (
    "start.sh", "init.sh", "memory.sh", "server.sh", "download.sh", "install.sh", "disk.sh", "display.sh", "prepare.sh",
    "boot.sh", "proc.sh", "balloon.sh",
)  # fmt: skip
"""Other files that the entry script sources. They are empty here, because base.sh sets their variables."""

NETWORK: Final = (
    "for each in nic:user host:172.30.0.2 gw:172.30.0.1; do echo ${each#*:} >$QEMU_DIR/qemu.${each%%:*}; done\n"
)
"""The command that describes the network in files, as the base image's network.sh does."""

STOPPED: Final = 143
INTERRUPTED: Final = 130
"""The entry script's exit statuses after SIGTERM and after SIGINT."""

pytestmark = [
    pytest.mark.skipif(not CHECKOUT, reason="VIRTUAL_DSM names no checkout of vdsm/virtual-dsm"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made by root"),
    pytest.mark.timeout(300),
]


@define
class Container:
    """The running entry script; `run` is its /run."""

    run: Path
    process: subprocess.Popen[bytes]
    terminal: int | None = None
    output: str = ""
    reader: threading.Thread = field(factory=threading.Thread)
    environment: dict[str, str] = field(factory=dict)

    def follow(self, fd: int) -> None:
        """Collect the script's output, in a thread."""

        def read() -> None:
            while True:
                try:
                    data = os.read(fd, 65536)
                except OSError:  # a terminal whose other end is closed
                    return
                if not data:
                    return
                self.output += data.decode(errors="replace")

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()

    def says(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + BOOT_TIMEOUT
        while self.output.count(text) < times:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.output[-4000:]}"
            assert self.process.poll() is None, self.output[-4000:]
            time.sleep(0.05)

    def boots(self) -> None:
        """Wait until QEMU runs: before it has written its pid, a SIGTERM to the scripts kills it at once."""
        self.says("Booting Virtual DSM using QEMU")
        until((self.run / "shm/qemu.pid").exists, "QEMU's pid", BOOT_TIMEOUT)

    def ended(self) -> int:
        code = self.process.wait(BOOT_TIMEOUT)
        self.reader.join(BOOT_TIMEOUT)
        return code

    def check(self) -> tuple[int, str]:
        """Run the container's health check; return its exit status and output."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.process.pid), "-m", "-n", "/run/check.sh"],
            env=self.environment, capture_output=True, text=True, timeout=BOOT_TIMEOUT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@contextmanager
def container(folder: Path, images: Images, *, terminal: bool = False, **settings: str) -> Iterator[Container]:
    """Start the container's scripts in a folder. Processes that remain are killed at the end."""
    run = folder / "run"
    (run / "shm").mkdir(parents=True, exist_ok=True)
    for name in THEIRS:
        shutil.copy(Path(CHECKOUT) / "src" / name, run)
        (run / name).chmod(0o755)
    for name in EMPTY:
        (run / name).write_text("return 0\n")
    (run / "network.sh").write_text(NETWORK)
    shutil.copy(HERE / "base.sh", run / "utils.sh")
    shutil.copy(PROGRAM, run / "host.bin")
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    qemu, *data = images.qemu[1::2]
    start = binaries / "qemu-system-x86_64"
    start.write_text(f'#!/bin/sh\nexec {shutil.which(qemu)} {" ".join(f"-L {each}" for each in data)} "$@"\n')
    start.chmod(0o755)
    disks = {"BOOT_DISK": images.boot, "SYSTEM_DISK": images.system, "DATA_DISK": images.data}
    environment = ENVIRONMENT | {key: str(value) for key, value in disks.items()} | {"BASE": str(HERE)} | settings
    environment["PATH"] = f"{binaries}:{environment['PATH']}"
    command = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--mount-proc",
        "--fork",
        "--kill-child",
        str(HERE / "enter.sh"),
        str(run),
    ]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    # With a terminal, in the foreground, as with `docker run -it`: a Ctrl-C reaches every process of the group.
    command = ["setsid", "--ctty", "--wait", *command] if terminal else command
    with started(
        command, env=environment, stdin=theirs if terminal else subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        start_new_session=not terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        found = Container(run, process, ours if terminal else None, environment=environment)
        found.follow(ours)
        try:
            yield found
        finally:
            end(process)
            found.reader.join(BOOT_TIMEOUT)
            os.close(ours)


def term(found: Container) -> None:
    """Send SIGTERM to the entry script, the namespace's first process."""
    (entry,) = Path(f"/proc/{found.process.pid}/task/{found.process.pid}/children").read_text().split()
    os.kill(int(entry), signal.SIGTERM)


def test_from_start_to_stop(tmp_path: Path, images: Images) -> None:
    with container(tmp_path, images, GUEST_SERIAL=" 1234abc567890") as found:
        found.boots()
        assert found.check() == (0, "DSM has not enabled networking yet...\n")
        found.says("answer 5 guest_serial")
        found.says("1234ABC567890")
        found.says("You can now login to DSM at")
        assert (found.run / "shm/dsm.url").read_text() == "10.0.2.15:5000\n"
        assert found.check() == (0, "Healthcheck OK\n")
        term(found)
        found.says("Virtual DSM is now ready to shutdown")
        assert found.ended() == STOPPED
        assert "Shutdown completed" in found.output
        assert "Forcefully" not in found.output
        assert "killed for" not in found.output


def test_a_stop_during_boot_waits_for_the_guest(tmp_path: Path, images: Images) -> None:
    with container(tmp_path, images) as found:
        found.boots()
        term(found)
        assert found.ended() == STOPPED
        assert "Virtual DSM is now ready to shutdown" in found.output
        assert "Forcefully" not in found.output
        assert "request 6 poweroff" in found.output


def test_a_second_sigterm_changes_nothing(tmp_path: Path, images: Images) -> None:
    with container(tmp_path, images) as found:
        found.says("vchannel: ready")
        term(found)
        found.says("Received SIGTERM signal")
        term(found)
        assert found.ended() == STOPPED
        assert "Virtual DSM is now ready to shutdown" in found.output
        assert "killed for" not in found.output


def test_a_start_on_the_sockets_of_a_killed_container(tmp_path: Path, images: Images) -> None:
    with container(tmp_path, images) as found:
        found.says("vchannel: ready")
    assert (tmp_path / "run/shm/qemu-host-api.sock").is_socket()
    (tmp_path / "run/shm/qemu.pid").unlink()  # a new container has no such file
    with container(tmp_path, images) as found:
        found.says("vchannel: ready")
        term(found)
        assert found.ended() == STOPPED
        assert "Virtual DSM is now ready to shutdown" in found.output


def test_ctrl_c_stops_the_guest_through_the_script(tmp_path: Path, images: Images) -> None:
    """The Ctrl-C reaches qemu-host too, but the script's stop still needs qemu-host."""
    with container(tmp_path, images, terminal=True) as found:
        assert found.terminal is not None
        found.says("vchannel: ready")
        os.write(found.terminal, b"\x03")
        found.says("Received SIGINT signal")
        found.says("Virtual DSM is now ready to shutdown")
        assert found.ended() == INTERRUPTED
        assert "killed for" not in found.output
