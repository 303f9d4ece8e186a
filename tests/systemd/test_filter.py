"""System calls of the programs, compared with the filters of their units."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.serving import ENVIRONMENT, VHOSTCOMM, LogReader, Serving, end, fake_guest, held_port, run_vhostcomm
from vchannel import HostCommand
from vhostcomm.systemd import units

pytestmark = pytest.mark.needs("systemd-analyze", "strace")

QEMU_TIMEOUT: Final = 60.0
"""Seconds for a QEMU under strace."""


@cache
def members(group: str) -> frozenset[str]:
    """The system calls of a group that systemd defines, including the groups in it."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = [line.strip() for line in done.stdout.splitlines()[1:] if line.strip() and "#" not in line]
    return frozenset().union(*(members(name) if name.startswith("@") else {name} for name in names))


def allowed(unit: str) -> frozenset[str]:
    """The system calls that the unit's filter allows."""
    found: frozenset[str] = frozenset()
    for line in re.findall(r"^SystemCallFilter=(.*)$", units.text(unit), re.MULTILINE):
        for word in line.removeprefix("~").split():
            group = members(word) if word.startswith("@") else {word}
            found = found - group if line.startswith("~") else found | group
    return found


def names(lines: list[str]) -> frozenset[str]:
    """The system calls in a trace."""
    return frozenset(match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line)))


def families(lines: list[str]) -> set[str]:
    return {match[1] for line in lines if (match := re.search(r"\bsocket\((AF_\w+)", line))}


class Traced(Serving):
    """A daemon under strace."""

    def __init__(self, trace: Path, *words: str | Path) -> None:
        super().__init__(*words, env=ENVIRONMENT | {"NOTIFY_SOCKET": "@nobody-listens"})
        self.command = ["strace", "-f", "-qq", "-o", str(trace), *self.command]

    def send_signal(self, number: signal.Signals) -> None:
        (serving,) = [line for line in self.log if line["event"] == "serving"]
        os.kill(serving["pid"], number)


def test_daemon_makes_only_allowed_system_calls(tmp_path: Path) -> None:
    config, trace = tmp_path / "c.toml", tmp_path / "trace"
    config.write_text(
        f'[guests.nas]\nsock = "{tmp_path}/nas"\n[serve]\nsocket_mode = "0660"\nrecord = "{tmp_path}/{{guest}}.jsonl"\n'
    )
    with Traced(trace, "--config", config, "--control", tmp_path / "control") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            shown = run_vhostcomm("guests", "--control", tmp_path / "control", "--json")
            assert json.loads(shown.stdout)
        config.write_text(config.read_text() + f'[guests.more]\nsock = "{tmp_path}/more"\n')
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["added"] == 1
    lines = trace.read_text().splitlines()
    called = names(lines)
    assert called >= {"execve", "accept4", "bind", "sendto"}, "strace saw it"
    assert not called - allowed(units.SERVE), called - allowed(units.SERVE)
    assert not called - allowed(units.SERVE_ONE)
    # MemoryDenyWriteExecute= and RestrictAddressFamilies=
    assert not [line for line in lines if re.search(r"\bmmap\(.*PROT_WRITE\|PROT_EXEC|\bmprotect\(.*PROT_EXEC", line)]
    assert families(lines) == {"AF_UNIX"}
    # The filter forbids something: it is not a list of all system calls.
    assert not {"chown", "mount", "ptrace", "setuid", "bpf", "sched_setaffinity"} & allowed(units.SERVE)


def test_launcher_and_qemu_make_only_allowed_system_calls(tmp_path: Path) -> None:
    """The machine has the user's network and a forwarded port. The trace ends after QMP's quit."""
    disk, trace = tmp_path / "disk.img", tmp_path / "trace"
    disk.write_bytes(bytes(1 << 20))
    with held_port() as port:
        _trace_of_a_launch(disk, trace, port)
    lines = trace.read_text().splitlines()
    assert names(lines) >= {"execve", "ppoll", "prctl"}, "strace saw QEMU"
    assert not names(lines) - allowed(units.RUN), names(lines) - allowed(units.RUN)
    assert families(lines) <= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}


def _trace_of_a_launch(disk: Path, trace: Path, port: int) -> None:
    machine = ["--accel", "tcg", "--memory", "64M", "--serial-console", "none", "--forward", f"{port}:5000"]
    run = LogReader(
        ["strace", "-f", "-qq", "-o", str(trace), *VHOSTCOMM, "run", "--boot", str(disk), *machine, "--control", "none",
         "--grace", "10"]
    )  # fmt: skip
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(trace.parent)}
    run.process = subprocess.Popen(run.command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert run.process.stderr
    run.follow(run.process.stderr)
    run.timeout = 2 * QEMU_TIMEOUT
    try:
        qemu = run.event("QEMU runs")["pid"]
        os.kill(int(Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGTERM)
        assert run.process.wait(QEMU_TIMEOUT) == 0
    finally:
        end(run.process)  # strace and what it traces
        run.finish()
