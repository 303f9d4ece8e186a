"""Descriptors lent to a child, in a process of its own: pytest has taken ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os
from vhostcomm.qemu.terminal import lent_terminal
with lent_terminal() as (reading, writing):
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    os.write(writing, b"shared " if not os.get_blocking(1) else b"own ")
    os.write(2, b"shared" if not os.get_blocking(0) else b"own")
assert len(os.listdir("/proc/self/fd")) <= 4, os.listdir("/proc/self/fd")
"""


def lend(stdin: int | IO[bytes], stdout: int | IO[bytes], prefix: str = "") -> tuple[str, str]:
    """What became of standard output, as it arrived there, and of standard input."""
    command = ["sh", "-c", f'exec "$@" {prefix}', "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=True, cwd=ROOT)
    return (done.stdout or b"").decode(), done.stderr.decode()


def test_pipes_become_the_childs_own() -> None:
    assert lend(subprocess.DEVNULL, subprocess.PIPE) == ("own ", "own")


def test_a_file_is_shared_for_its_position(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before ")
    with path.open("ab") as log:
        assert lend(subprocess.DEVNULL, log)[1] == "own"
    assert path.read_text() == "before shared "


def test_what_is_closed_is_replaced_by_nothing() -> None:
    assert lend(subprocess.DEVNULL, subprocess.PIPE, "<&-")[0] == "own "
