"""Private files that are replaced, also by a process that is killed meanwhile."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

from vhostcomm.linux.private_files import replace_private

KILLED = """
import os, signal, sys
from pathlib import Path
from vhostcomm.linux.private_files import replace_private

def parts():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)

replace_private(Path(sys.argv[1]), parts())
"""


def test_temporary_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "private"
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
        assert ended.returncode == -signal.SIGKILL
        assert [*tmp_path.iterdir()] == [tmp_path / "private.new"]
    replace_private(path, [b"a", b"b"])
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"ab"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_that_share_a_file_have_their_own_temporary_files(tmp_path: Path) -> None:
    path, other = tmp_path / "private", tmp_path / "private.1.new"
    other.write_bytes(b"of another process")
    replace_private(path, [b"a"], shared=True)
    assert path.read_bytes() == b"a"
    assert other.exists()
