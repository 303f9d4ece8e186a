"""A private libvirt for a test: its QEMU driver runs inside virsh (``qemu:///embed``), without a daemon. All files are in one folder.

virsh runs in separate namespaces, so that its QEMU, which becomes a background process, ends with virsh. Without root,
its QEMU runs as the test's user. As root, its QEMU runs as the user libvirt-qemu, as with a system's libvirt.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.needs import need
from tests.serving import ENVIRONMENT, end

TIMEOUT: Final = 60.0

_USER: Final = ["--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else ["--map-current-user"]

_PROCESSES: Final = ["--pid", "--fork", "--kill-child", "--mount-proc"]

NUMBER: Final = 64055
"""The id for a missing user libvirt-qemu, and its group; a missing group kvm has the next id."""


_CONFIGURATION: Final = """\
security_driver = "none"
cgroup_controllers = [ ]
hugetlbfs_mount = [ ]
stdio_handler = "file"
namespaces = [ ]
"""
"""Use no AppArmor, control groups or virtlogd of this machine."""


def virsh(folder: Path, *, root: bool = False) -> list[str]:
    # The first process of a namespace must reap orphans, because libvirt waits for their end. bash does so while it
    # waits for virsh. Without stdbuf, virsh would buffer its output to a pipe.
    script = '"$@"; exit $?'
    if root:
        mounts = [
            "mount --bind passwd /etc/passwd",
            "mount --bind group /etc/group",
            # If libvirt-qemu may not use a working /dev/kvm, libvirt probes QEMU's capabilities again and again.
            "{ [ ! -e /dev/kvm ] || mount --bind no-kvm /dev/kvm; }",
            "mount -t tmpfs none /run",
        ]
        script = f"cd '{folder}' && {' && '.join(mounts)} && {{ {script}; }}"
    namespaces = ["unshare", *(["--mount"] if root else ["--user", *_USER]), *_PROCESSES]
    places = [f"{name}={folder}/home" for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")]
    program = ["stdbuf", "-oL", "virsh", "--connect", f"qemu:///embed?root={folder}"]
    (folder / "home").mkdir(exist_ok=True)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/qemu.conf").write_text(_CONFIGURATION)
    return [*namespaces, "bash", "-c", script, "bash", "env", *places, *program]


def with_users(folder: Path) -> int:
    """Write files with the user libvirt-qemu in the group kvm, which root's libvirt needs; return the group's id."""
    users, groups = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    if "\nlibvirt-qemu:" not in users:
        users += f"libvirt-qemu:x:{NUMBER}:{NUMBER}::/nonexistent:/usr/sbin/nologin\n"
    for name, number in (("libvirt-qemu", NUMBER), ("kvm", NUMBER + 1)):
        if f"\n{name}:" not in groups:
            groups += f"{name}:x:{number}:\n"
    (folder / "passwd").write_text(users)
    (folder / "group").write_text(re.sub(r"(?m)^(kvm:.*:)(.*)$", r"\1libvirt-qemu", groups))
    (folder / "no-kvm").touch(0o600)
    found = re.search(r"(?m)^kvm:[^:]*:([0-9]+):", groups)
    assert found
    return int(found[1])


def needed(folder: Path, *, root: bool = False) -> None:
    """Skip a test with the reason if libvirt can't run."""
    need("virsh", "libvirtd", "/usr/lib/*-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
    tried = subprocess.run(
        [*virsh(folder, root=root), "uri"], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    if tried.returncode:
        pytest.skip(f"libvirt can't run here: {tried.stderr.strip()}")


_END: Final = "\0"


class Libvirt:
    """An interactive virsh. Leaving the context ends virsh and everything that it started."""

    def __init__(self, folder: Path, *, root: bool = False) -> None:
        self._command = virsh(folder, root=root)
        self._lines: queue.Queue[str] = queue.Queue()
        self._asked = 0

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=ENVIRONMENT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.run("uri")  # the output up to here is virsh's greeting
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(_END)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # --kill-child kills the first process of the namespace, and its end kills virsh and QEMU.
        end(self.process)
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive(), "virsh ended, but a program that it started keeps its output open"
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()

    def run(self, *words: str | Path) -> str:
        """Run a virsh command, which must succeed; return its output."""
        output, failed = self._run(*words)
        assert not failed, output
        return output

    def refuses(self, *words: str | Path) -> str:
        """Run a virsh command, which must fail; return its output."""
        output, failed = self._run(*words)
        assert failed, output
        return output

    def _run(self, *words: str | Path) -> tuple[str, bool]:
        self._asked += 1
        mark = f"end {self._asked}"
        assert self.process.stdin
        self.process.stdin.write(" ".join(f"'{word}'" for word in words) + f"\necho '{mark}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while not lines or lines[-1] != mark:
            lines.append(self._lines.get(timeout=TIMEOUT))
            assert lines[-1] != _END, lines
        output = [line for line in lines[:-1] if line and not line.startswith("virsh # ")]
        return "\n".join(output), any(line.startswith("error:") for line in output)


def slots(command: str) -> dict[str, str]:
    """Return the PCI addresses in a QEMU command with their devices, for both spellings of -device."""
    found = {}
    for device in re.findall(r"-device '?(\{.*?\}|\S+)", command):
        place = re.search(r'"?addr"?[:=]"?(0x[0-9a-f.x]+)', device)
        driver = re.search(r'"driver":"([^"]+)"', device)
        if place:
            found[place[1]] = driver[1] if driver else device.partition(",")[0]
    return found
