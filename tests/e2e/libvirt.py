"""A libvirt of a test's own: its QEMU driver inside virsh (``qemu:///embed``), no daemon, and nothing outside a folder.

It runs in namespaces of its own, so that its QEMU, which goes into the background, ends with it. There it isn't root,
and its QEMU is the test's user; or it is root, and its QEMU the user libvirt-qemu, as a system's libvirt has it.
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

PATIENCE: Final = 60.0

_USER: Final = ["--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else ["--map-current-user"]

_PROCESSES: Final = ["--pid", "--fork", "--kill-child", "--mount-proc"]

NUMBER: Final = 64055
"""Of the user and the groups that aren't there."""


_CONFIGURATION: Final = """\
security_driver = "none"
cgroup_controllers = [ ]
hugetlbfs_mount = [ ]
stdio_handler = "file"
namespaces = [ ]
"""
"""Nothing of the machine's: neither its AppArmor, nor its control groups, nor a virtlogd."""


def virsh(folder: Path, *, root: bool = False) -> list[str]:
    # The first process of a namespace has to wait for those that lost their parent, as libvirt waits for their end:
    # bash does, while it waits for virsh, which without stdbuf would write into a pipe only now and then.
    script = '"$@"; exit $?'
    if root:
        mounts = [
            "mount --bind passwd /etc/passwd",
            "mount --bind group /etc/group",
            # Where libvirt-qemu may not use a /dev/kvm that works, libvirt asks QEMU again and again what it can do.
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
    """Put there what a libvirt of root's wants: its user, who is in the group kvm. Returns that group's number."""
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
    """Skip a test where libvirt can't run, with the reason."""
    need("virsh", "libvirtd", "/usr/lib/*-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
    tried = subprocess.run(
        [*virsh(folder, root=root), "uri"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if tried.returncode:
        pytest.skip(f"libvirt can't run here: {tried.stderr.strip()}")


_END: Final = "\0"


class Libvirt:
    """virsh, spoken to. Leaving the context ends it, and what it runs."""

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
            self.tell("uri")  # its greeting comes before
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
        # --kill-child takes virsh along, which is the first process of its namespace, and that takes QEMU.
        end(self.process)
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "virsh ended; something that it started has its output open"
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()

    def tell(self, *words: str | Path) -> str:
        """A virsh command, which must succeed; its output."""
        told, failed = self._told(*words)
        assert not failed, told
        return told

    def refuses(self, *words: str | Path) -> str:
        """A virsh command, which must fail; what it says."""
        told, failed = self._told(*words)
        assert failed, told
        return told

    def _told(self, *words: str | Path) -> tuple[str, bool]:
        self._asked += 1
        mark = f"told {self._asked}"
        assert self.process.stdin
        self.process.stdin.write(" ".join(f"'{word}'" for word in words) + f"\necho '{mark}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while not lines or lines[-1] != mark:
            lines.append(self._lines.get(timeout=PATIENCE))
            assert lines[-1] != _END, lines
        told = [line for line in lines[:-1] if line and not line.startswith("virsh # ")]
        return "\n".join(told), any(line.startswith("error:") for line in told)


def slots(command: str) -> dict[str, str]:
    """The PCI places in a QEMU command, and what is there; either spelling of -device."""
    found = {}
    for device in re.findall(r"-device '?(\{.*?\}|\S+)", command):
        place = re.search(r'"?addr"?[:=]"?(0x[0-9a-f.x]+)', device)
        driver = re.search(r'"driver":"([^"]+)"', device)
        if place:
            found[place[1]] = driver[1] if driver else device.partition(",")[0]
    return found
