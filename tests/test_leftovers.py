"""The check at the end of a test session finds processes and mounts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.leftovers import MARK, mounts_below, processes_marked
from tests.serving import ENVIRONMENT

SESSION = f"leftovers-{os.getpid()}"


def test_a_process_that_lost_its_parent_is_found() -> None:
    script = "import subprocess; print(subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL).pid)"
    started = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT | {MARK: SESSION}, stdout=subprocess.PIPE, text=True, check=True
    )
    pid = int(started.stdout)
    try:
        assert processes_marked(SESSION) == {pid: "sleep 1000 "}
    finally:
        os.kill(pid, 9)


def test_a_mount_is_found(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path; from tests.leftovers import mounts_below\n"
        f"print(mounts_below(Path({str(tmp_path)!r})))"
    )
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']
    seen = subprocess.run(
        [*mounting, tmp_path, sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert seen.stdout.strip() == str([str(tmp_path)])
    assert not mounts_below(tmp_path)


def test_runtime_directories_are_private() -> None:
    for name in "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME":
        assert Path(tempfile.gettempdir(), os.environ[MARK]) in Path(ENVIRONMENT[name]).parents, name
