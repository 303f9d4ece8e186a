"""A machine with systemd as PID 1, in a container of systemd-nspawn. It has no network but its loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from attrs import define

from tests.serving import until
from vhostcomm.systemd import units

PROGRAM: Final = "/opt/vhostcomm/bin/vhostcomm"
CONFIG: Final = "/etc/vhostcomm/vhostcomm.toml"
TIMEOUT: Final = 60.0

_ENVIRONMENT: Final = {"PATH": "/opt/vhostcomm/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_POWER_OFF: Final = signal.SIGRTMIN + 4
"""The signal that makes systemd as PID 1 power off."""

_REBOOTED: Final = 133
"""The exit status of `systemd-nspawn --keep-unit` for a machine that reboots: its caller must start it again."""


@define
class Booted:
    """A machine that has booted. `leader` is the pid of its systemd outside; a reboot changes it."""

    _root: Path
    _console: Path
    _process: subprocess.Popen[bytes]
    leader: int

    @classmethod
    def boot(cls, root: Path, console: Path) -> Self:
        """Boot a folder, and wait until it has started its services."""
        process = _started(root, console)
        try:
            until(lambda: _leader(process.pid) or process.poll() is not None, f"systemd; see {console}", TIMEOUT)
            assert process.poll() is None, console.read_text()
            machine = cls(root, console, process, _leader(process.pid))
            until(lambda: machine.path("/run/dbus/system_bus_socket").is_socket(), "the machine's bus", TIMEOUT)
            state = machine.systemctl("is-system-running", "--wait", check=False).stdout.strip()
            assert state in {"running", "degraded"}, state
        except BaseException:
            process.kill()
            process.wait()
            raise
        return machine

    def reboot(self) -> None:
        """Stop its services in their order, and boot it again."""
        self.systemctl("reboot", check=False)  # its own connection may end first
        status = self._process.wait(3 * TIMEOUT)
        assert status == _REBOOTED, (status, self._console.read_text())
        again = self.boot(self._root, self._console)
        self._process, self.leader = again._process, again.leader

    def power_off(self) -> None:
        os.kill(self.leader, _POWER_OFF)
        self._process.wait(TIMEOUT)

    def kill(self) -> None:
        """End it, also if it is powered off."""
        self._process.kill()
        self._process.wait()

    def path(self, inside: str) -> Path:
        """The path of a file in the machine, from outside. Sockets accept connections at this path."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine, as root."""
        done = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", *words],
            env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--no-pager", *words, check=check)

    def write(self, inside: str, text: str) -> None:
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self, unit: str, *words: str, program: str = PROGRAM) -> None:
        """A unit as `vhostcomm snippet systemd` prints it, in the file that it names."""
        printed = self.run(program, "snippet", "systemd", "--unit", unit, *words)
        file = printed.stderr.partition("save it as ")[2].partition(",")[0]
        assert file.startswith("/etc/systemd/system/vhostcomm"), printed.stderr
        self.write(file, printed.stdout)
        self.systemctl("daemon-reload")

    def drop_in(self, unit: str, text: str) -> None:
        """Write a drop-in, as `systemctl edit` does."""
        self.write(f"/etc/systemd/system/{unit}.d/override.conf", text)
        self.systemctl("daemon-reload")

    def show(self, unit: str) -> dict[str, str]:
        """The properties of a unit."""
        shown = self.systemctl("show", unit).stdout
        return dict(line.partition("=")[::2] for line in shown.splitlines())

    def journal(self, unit: str, *words: str) -> list[dict[str, Any]]:
        """The messages of a unit, and of systemd about it."""
        self.run("journalctl", "--sync")
        printed = self.run("journalctl", "--output=json", f"--unit={unit}", *words).stdout
        return [json.loads(line) for line in printed.splitlines()]

    def said(self, unit: str, *words: str) -> str:
        """The messages of `journal` as text."""
        return "\n".join(str(each["MESSAGE"]) for each in self.journal(unit, *words))

    def pids(self, unit: str) -> list[int]:
        """The pids outside of a unit's processes; the main one first."""
        procs = self.run("cat", f"/sys/fs/cgroup{self.show(unit)['ControlGroup']}/cgroup.procs").stdout
        inside = [int(each) for each in procs.split()]
        return [self.outside(each) for each in sorted(inside)]

    def main_pid(self, unit: str) -> int:
        """The pid outside of a unit's main process."""
        return self.outside(int(self.show(unit)["MainPID"]))

    def outside(self, pid: int) -> int:
        """The pid outside of a process in the machine."""
        for each in Path("/proc").glob("[0-9]*/status"):
            try:
                text = each.read_text()
            except OSError:  # it has ended
                continue
            numbers = text.partition("NSpid:")[2].partition("\n")[0].split()
            if len(numbers) > 1 and int(numbers[-1]) == pid and self._is_inside(int(numbers[0])):
                return int(numbers[0])
        raise AssertionError(f"no process {pid} in the machine")

    def _is_inside(self, pid: int) -> bool:
        own, its = (Path(f"/proc/{each}/ns/pid") for each in (self.leader, pid))
        try:
            return own.samefile(its)
        except OSError:
            return False

    def clear(self) -> None:
        """Remove our units, and everything that they have left."""
        for kind in ("vhostcomm*.socket", "vhostcomm*.service"):
            self.systemctl("stop", kind)
        self.systemctl("reset-failed")
        kept = "/etc/systemd/system/vhostcomm* /etc/vhostcomm /var/lib/vhostcomm* /var/lib/private/vhostcomm* /var/log/vhostcomm"
        self.run("sh", "-c", f"rm -rf {kept} /var/log/private/vhostcomm /run/vhostcomm-sockets")
        self.systemctl("daemon-reload")


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def uid(pid: int) -> int:
    return int(status(pid)["Uid"].split()[0])


@contextmanager
def booted(root: Path, work: Path) -> Iterator[Booted]:
    """Boot a folder; it is powered off at the end."""
    machine = Booted.boot(root, work / "console")
    try:
        yield machine
        machine.power_off()
    finally:
        machine.kill()


def _started(root: Path, console: Path) -> subprocess.Popen[bytes]:
    command = [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit", "--link-journal=no",
        "--resolv-conf=off", "--console=read-only", "--private-network", "--capability=all",
    ]  # fmt: skip
    environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_SECCOMP": "0"}
    with console.open("ab") as output:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def _leader(nspawn: int) -> int:
    """The machine's PID 1; 0 until it has become systemd."""
    for line in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with suppress(OSError):  # it ends
            if (
                status(int(line))["NSpid"].split()[1:] == ["1"]
                and Path(f"/proc/{line}/root/run/systemd/system").is_dir()
            ):
                return int(line)
    return 0


def guests(config: str, *names: str) -> str:
    """A configuration with guests, each at its socket in the runtime directory."""
    return config + "".join(f'[guests.{name}]\nsock = "{units.RUNTIME}/{name}"\n' for name in names)
