"""What a daemon calls, against what its unit lets it call."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from functools import cache
from pathlib import Path

from tests.serving import ENVIRONMENT, Serving, fake_guest, run_vhostcomm
from vchannel import HostCommand
from vhostcomm import units


@cache
def members(group: str) -> frozenset[str]:
    """The system calls of a group of systemd's, and of those in it."""
    told = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = [line.strip() for line in told.stdout.splitlines()[1:] if line.strip() and "#" not in line]
    return frozenset().union(*(members(name) if name.startswith("@") else {name} for name in names))


def allowed(unit: str) -> frozenset[str]:
    """What the unit's filter lets through."""
    found: frozenset[str] = frozenset()
    for line in re.findall(r"^SystemCallFilter=(.*)$", units.text(unit), re.MULTILINE):
        for word in line.removeprefix("~").split():
            found = found - members(word) if line.startswith("~") else found | members(word)
    return found


class Traced(Serving):
    """A daemon under strace."""

    def __init__(self, trace: Path, *words: str | Path) -> None:
        super().__init__(*words, env=ENVIRONMENT | {"NOTIFY_SOCKET": "@nobody-listens"})
        self.command = ["strace", "-f", "-qq", "-o", str(trace), *self.command]

    def send_signal(self, number: signal.Signals) -> None:
        (serving,) = [line for line in self.log if line["event"] == "serving"]
        os.kill(serving["pid"], number)


def test_it_calls_nothing_that_its_unit_forbids(tmp_path: Path) -> None:
    config, trace = tmp_path / "c.toml", tmp_path / "trace"
    config.write_text(
        f'[guests.nas]\nsock = "{tmp_path}/nas"\n[serve]\nsocket_mode = "0660"\nrecord = "{tmp_path}/{{guest}}.jsonl"\n'
    )
    with Traced(trace, "--config", config, "--control", tmp_path / "control") as daemon:
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial()
            guest.tell(HostCommand.GUEST_POWER, needs_response=False)
            shown = run_vhostcomm("guests", "--control", tmp_path / "control", "--json")
            assert json.loads(shown.stdout)
        config.write_text(config.read_text() + f'[guests.more]\nsock = "{tmp_path}/more"\n')
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["added"] == 1
    lines = trace.read_text().splitlines()
    called = {match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))}
    assert called >= {"execve", "accept4", "bind", "sendto"}, "strace saw it"
    assert not called - allowed(units.SERVE), called - allowed(units.SERVE)
    assert not called - allowed(units.SERVE_ONE)
    # MemoryDenyWriteExecute= and RestrictAddressFamilies=
    assert not [line for line in lines if re.search(r"\bmmap\(.*PROT_WRITE\|PROT_EXEC|\bmprotect\(.*PROT_EXEC", line)]
    families = {match[1] for line in lines if (match := re.search(r"\bsocket\((AF_\w+)", line))}
    assert families == {"AF_UNIX"}
    # Forbidden things are told apart: the filter is no list of everything.
    assert not {"chown", "mount", "ptrace", "setuid", "bpf", "sched_setaffinity"} & allowed(units.SERVE)
