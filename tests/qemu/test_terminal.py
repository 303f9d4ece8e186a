"""Descriptors lent to a child. A separate process lends them, because pytest has replaced this one's."""

from __future__ import annotations

import os
import pty
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
    """Return, for standard output and for standard input, whether the child shares the open file or has its own."""
    command = ["sh", "-c", f'exec "$@" {prefix}', "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=True, cwd=ROOT)
    return (done.stdout or b"").decode(), done.stderr.decode()


def test_pipes_are_reopened_for_the_child() -> None:
    assert lend(subprocess.DEVNULL, subprocess.PIPE) == ("own ", "own")


def test_file_is_shared_to_keep_its_position(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before ")
    with path.open("ab") as log:
        assert lend(subprocess.DEVNULL, log)[1] == "own"
    assert path.read_text() == "before shared "


def test_closed_streams_are_not_replaced() -> None:
    assert lend(subprocess.DEVNULL, subprocess.PIPE, "<&-")[0] == "own "


SWITCHED = [(b"\x1b[?7l", b"\x1b[?7h"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?1047h", b"\x1b[?1047l"),
    (b"\x1b[?1049h", b"\x1b7\x1b[?1049l"), (b"\x1b[?1004h", b"\x1b[?1004l"), (b"\x1b[?1005h", b"\x1b[?1005l"),
    (b"\x1b[?1015h", b"\x1b[?1015l"),
    (b"\x1b[?1003h", b"\x1b[?1003l"), (b"\x1b[?2004h", b"\x1b[?2004l"), (b"\x1b[?1h", b"\x1b[?1l"),
    (b"\x1b=", b"\x1b>"), (b"\x1b[4h", b"\x1b[4l"), (b"\x1b[31m", b"\x1b[0m"), (b"\x0e", b"\x0f"),
    (b"\x1b[5;9r", b"\x1b[r"),
]  # fmt: skip
"""Sequences with which firmware and guests change a terminal, and those that undo them."""


def test_terminal_modes_are_restored() -> None:
    changes = b"".join(change for change, _ in SWITCHED)
    script = (
        "import os\nfrom vhostcomm.qemu.terminal import lent_terminal\n"
        f"with lent_terminal() as (_, writing):\n    os.write(writing, {changes!r})\n"
    )
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", script], stdin=theirs, stdout=theirs, check=True, cwd=ROOT)
        shown = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert shown.startswith(changes)
    for change, back in SWITCHED:
        assert shown.rfind(back) > shown.rfind(change), (change, shown)
