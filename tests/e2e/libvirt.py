"""A libvirt of a test's own: its QEMU driver inside virsh (``qemu:///embed``), no daemon, and nothing outside a folder.

It runs in namespaces of its own: as root it would want a user libvirt-qemu, so it isn't root there; and its QEMU, which
goes into the background, ends with it.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.serving import ENVIRONMENT

PATIENCE: Final = 60.0

USER: Final = ["--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else ["--map-current-user"]

NAMESPACES: Final = ["unshare", "--user", *USER, "--pid", "--fork", "--kill-child", "--mount-proc"]


def virsh(folder: Path) -> list[str]:
    # The first process of a namespace has to wait for those that lost their parent, as libvirt waits for their end:
    # bash does, while it waits for virsh, which without stdbuf would write into a pipe only now and then.
    first = ["bash", "-c", '"$@"; exit $?', "bash", "stdbuf", "-oL"]
    return [*NAMESPACES, *first, "virsh", "--connect", f"qemu:///embed?root={folder}"]


def needed(folder: Path) -> None:
    """Skip a test where libvirt can't run, with the reason."""
    for program in ("virsh", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: tests/tools.sh names the packages")
    tried = subprocess.run([*virsh(folder), "uri"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    if tried.returncode:
        pytest.skip(f"libvirt can't run here: {tried.stderr.strip()}")


class Libvirt:
    """virsh, spoken to. Leaving the context ends it, and what it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: queue.Queue[str] = queue.Queue()
        self._asked = 0

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            virsh(self._folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=ENVIRONMENT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.tell("uri")  # its greeting comes before
        return self

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # --kill-child takes virsh along, which is the first process of its namespace, and that takes QEMU.
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()

    def tell(self, *words: str | Path) -> str:
        """A virsh command, which must succeed; its output."""
        self._asked += 1
        mark = f"told {self._asked}"
        assert self.process.stdin
        self.process.stdin.write(" ".join(f"'{word}'" for word in words) + f"\necho '{mark}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while not lines or lines[-1] != mark:
            lines.append(self._lines.get(timeout=PATIENCE))
        told = [line for line in lines[:-1] if line and not line.startswith("virsh # ")]
        assert not [line for line in told if line.startswith("error:")], told
        return "\n".join(told)


def slots(command: str) -> dict[str, str]:
    """The PCI places in a QEMU command, and what is there; either spelling of -device."""
    found = {}
    for device in re.findall(r"-device '?(\{.*?\}|\S+)", command):
        place = re.search(r'"?addr"?[:=]"?(0x[0-9a-f.x]+)', device)
        driver = re.search(r'"driver":"([^"]+)"', device)
        if place:
            found[place[1]] = driver[1] if driver else device.partition(",")[0]
    return found
