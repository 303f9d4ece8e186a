"""Images made with the real sfdisk and qemu-img."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vhostcomm.qemu.disk.layouts import Partition

GIB = 1 << 30
SIZE = 12 * GIB
"""Bytes, enough for the largest layout."""

COMPLAINT = ("Partition Version=0", "Partition layout is not DiskStation style.", "NOT EXECUTE /sbin/e2fsck.")


def run(*command: str | Path, stdin: str = "") -> str:
    found = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run(
        [str(word) for word in command], input=stdin, check=True, capture_output=True, text=True, env=os.environ | found
    ).stdout


def sparse(path: Path, size: int = SIZE) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def partitioned(path: Path, *partitions: Partition, label: str = "dos", size: int = SIZE) -> Path:
    lines = [f"start={each.start}, size={each.size}, type={each.type:x}" for each in partitions]
    run("sfdisk", "--quiet", sparse(path, size), stdin="\n".join([f"label: {label}", "unit: sectors", *lines]))
    return path
