"""A guest in a real QEMU, run by a separate process of `vdsm_run.py`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from attrs import evolve, frozen

from tests.forked import Forked, can_fork
from tests.serving import ENVIRONMENT, LogReader, end, run_vhostcomm

BOOT_TIMEOUT: Final = 90.0
"""Seconds to wait for a guest. It boots in three; several at once on a busy machine need many more."""

ROOT: Final = Path(__file__).parents[2]

VDSM_RUN: Final = [sys.executable, str(ROOT / "vdsm_run.py")]

NEVER_SEEN: Final = ("vchannel: wrong answer", "vchannel: stale answer", "vchannel: skipped", "vchannel: dropped")
"""The stand-in's console lines about a host that violates the protocol."""


@frozen
class Images:
    """The stand-in guest's files, and the QEMU to run it with."""

    kernel: Path
    initramfs: Path
    cmdline: str
    boot: Path
    system: Path
    data: Path
    qemu: tuple[str, ...]
    disks: tuple[str, ...] = ()

    def with_disks(self) -> Images:
        """Flags for a guest with its system disk and data disk. Writes are discarded."""
        return evolve(self, disks=("--system", str(self.system), "--data", str(self.data), "--snapshot"))

    def with_only(self, disk: Path | str) -> Images:
        """Flags for a guest with only that data disk. Writes are kept."""
        return evolve(self, disks=("--data", str(disk)))

    def idle(self, folder: Path) -> list[str]:
        """Flags for a machine whose firmware finds no system: it never boots, and needs almost no processor time."""
        disk = folder / "empty.img"
        with disk.open("wb") as made:
            made.truncate(1 << 20)
        return [*self.qemu, "--accel", "tcg", "--memory", "64M", "--net", "none", "--boot", str(disk), "--snapshot"]

    def direct(self, **parameters: object) -> list[str]:
        """Flags for a guest that starts its kernel directly, with `vchannel.` parameters. It has only the disks of the images."""
        append = " ".join([self.cmdline, *(f"vchannel.{name}={value}" for name, value in parameters.items())])
        return [
            *self.qemu, "--accel", "tcg", "--memory", "384M", "--net", "none",
            "--direct-kernel", str(self.kernel), "--initrd", str(self.initramfs), "--append", append, *self.disks,
        ]  # fmt: skip


class Console:
    """A guest's console, read from the file that QEMU writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def says(self, what: str, timeout: float = BOOT_TIMEOUT) -> str:
        """Wait for a line that contains the text, after the line of the last call; return it."""
        end = time.monotonic() + timeout
        while True:
            place = self.text.find(what, self._seen)
            if place >= 0 and (line_end := self.text.find("\n", place)) >= 0:
                self._seen = line_end
                return self.text[self.text.rfind("\n", 0, place) + 1 : line_end].strip()
            assert time.monotonic() < end, f"no {what!r} on the console:\n{self.text[-3000:]}"
            time.sleep(0.02)

    def kept_to_the_protocol(self) -> None:
        for line in NEVER_SEEN:
            assert line not in self.text, self.text[-3000:]


class Launched(LogReader):
    """A running `vdsm_run.py`, its log (on standard error) and its guest's console."""

    def __init__(self, folder: Path, *words: str, expect_exit: int | None = 0) -> None:
        self.console = Console(folder / "console")
        self.sock = folder / "sock"
        command = [
            *VDSM_RUN, "--log-format", "json", "--serial-console", str(self.console.path),
            *(() if "--sock" in words else ("--sock", str(self.sock))), *words,
        ]  # fmt: skip
        super().__init__(command)
        self._expect_exit = expect_exit
        self.timeout = BOOT_TIMEOUT

    def __enter__(self) -> Self:
        self.process = self._start()
        assert self.process.stderr
        self.follow(self.process.stderr)
        return self

    def _start(self) -> subprocess.Popen[bytes] | Forked:
        """Fork the launcher. A test that starts it through another program replaces this."""
        if self.command[:2] == VDSM_RUN and can_fork(ENVIRONMENT):
            _, program, *words = self.command
            return Forked(words, program=program, stdout=1, stderr=subprocess.PIPE, env=ENVIRONMENT)
        return subprocess.Popen(self.command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=ENVIRONMENT)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None and kind is None:
                self.process.send_signal(signal.SIGTERM)
            else:
                end(self.process)
            code = self.process.wait(self.timeout)
        finally:
            end(self.process)
            self.finish()
        if kind is None and self._expect_exit is not None:
            assert code == self._expect_exit, (code, self.log[-5:], self.other)

    @property
    def qemu_pid(self) -> int:
        """The process id of the QEMU that was started last."""
        return int(next(line["pid"] for line in reversed(self.log) if line["event"] == "QEMU runs"))

    def ready(self) -> None:
        """Wait until the guest has asked all its questions."""
        self.event("guest ready")
        self.console.says("vchannel: ready")

    def stop_at_once(self) -> int:
        """Stop QEMU by QMP, without waiting for the guest. QEMU has its whole time for that."""
        self.process.send_signal(signal.SIGTERM)
        self.event("stopping")
        self.process.send_signal(signal.SIGTERM)
        return self.ends()

    def ends(self) -> int:
        """Wait until the launcher has ended by itself; return its exit status."""
        return self.process.wait(self.timeout)


@contextmanager
def gone(pid: int, within: float) -> Iterator[None]:
    """Check that a process ends within that many seconds after the block."""
    import select

    descriptor = os.pidfd_open(pid)
    try:
        yield
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(within * 1000), f"process {pid} is still there after {within} s"
    finally:
        os.close(descriptor)


def command_of(*words: str) -> list[str]:
    """Return QEMU's command, as a shell parses the output of --dry-run."""
    printed = run_vhostcomm("run", "--dry-run", *words)
    assert printed.returncode == 0, printed.stderr
    return ["bash", "-c", f"exec {printed.stdout}"]


def qmp_command(path: Path, command: str) -> None:
    """Send one QMP command on a new connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(BOOT_TIMEOUT)
        client.connect(str(path))
        with client.makefile("rwb") as stream:
            stream.readline()
            for each in "qmp_capabilities", command:
                stream.write(json.dumps({"execute": each}).encode() + b"\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    assert "error" not in answer, answer
