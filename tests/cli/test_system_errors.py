"""Each program and verb reports an error of the operating system in one line, with the documented exit status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_streams import shell
from tests.deny import CLONE3
from tests.qemu_host.running import QEMU_HOST
from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM
from vhostcomm.linux.system_errors import user_error

ROOT = Path(__file__).parents[2]
VDSM_RUN = [sys.executable, str(ROOT / "vdsm_run.py")]

SERVE = [*VHOSTCOMM, "serve", "--sock", "nas=SOCK", "--control", "none"]
RUN = [*VDSM_RUN, "--boot", "DISK", "--accel", "tcg", "--sock", "SOCK", "--control", "none"]
PLACE = [str(QEMU_HOST), "-addr=unix:SOCK", "-api=unix:SOCK-api"]


def run(
    words: list[str], folder: Path, *before: str, cwd: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(1 << 20)
    command = [*before, *(word.replace("SOCK", f"{folder}/nas").replace("DISK", str(disk)) for word in words)]
    return subprocess.run(
        command,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | more,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def assert_fails_in_one_line(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert ended.returncode == 1, ended
    assert ended.stderr.count("\n") == 1, ended.stderr
    for part in parts:
        assert part in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [SERVE, RUN, PLACE], ids=["serve", "run", "qemu-host"])
def test_denied_clone3_is_one_line(words: list[str], tmp_path: Path) -> None:
    deny = [sys.executable, "-m", "tests.deny", CLONE3, str(errno.EPERM)]
    assert_fails_in_one_line(
        run(words, tmp_path, *deny), "the system refused a new thread", "denies clone3", "seccomp=unconfined"
    )


KEPT = "+dac_override,+dac_read_search"
"""Capabilities with which another user can run programs in root's home."""

FEW_PROCESSES = ["bash", "-c", 'ulimit -u 1; exec "$@"', "bash"]
if os.geteuid() == 0:  # the limit does not apply to root
    FEW_PROCESSES = [
        "setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps", KEPT, "--ambient-caps", KEPT,
        *FEW_PROCESSES,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (SERVE, ["a new thread", "ulimit -u"]),
        (RUN, ["a new thread", "ulimit -u"]),
        (PLACE, ["a new thread", "ulimit -u"]),
        ([*VHOSTCOMM, "snippet", "qemu", "--sock", "SOCK", "--qemu", "/bin/true"], ["/bin/true can't be", "ulimit -u"]),
        ([*VHOSTCOMM, "disk", "inspect", "SOCK.img"], ["sfdisk can't be run", "ulimit -u"]),
    ],
    ids=["serve", "run", "qemu-host", "snippet", "disk"],
)
def test_limit_of_processes_is_one_line(words: list[str], parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "nas.img").write_bytes(bytes(1 << 20))
    assert_fails_in_one_line(run(words, tmp_path, *FEW_PROCESSES), *parts)


def test_limit_of_processes_leaves_the_version(tmp_path: Path) -> None:
    ended = run([*VHOSTCOMM, "--version"], tmp_path, *FEW_PROCESSES)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Resource temporarily unavailable" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [[*RUN[:-4], "--dry-run", "--control", "none"], [*VHOSTCOMM, "disk", "inspect", "SOCK.qcow2"]],
    ids=["run", "disk"],
)
def test_missing_temporary_directory_is_one_line(words: list[str], tmp_path: Path) -> None:
    """In a mount namespace, all directories that Python tries are read-only."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "nas.qcow2", "1M"], check=True)
    read_only = (
        'for each in /tmp /var/tmp; do mount --bind $each $each && mount -o remount,bind,ro $each; done; exec "$@"'
    )
    namespace = [
        "unshare",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
        "--mount",
        "bash",
        "-c",
        read_only,
        "bash",
    ]
    without = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", KEPT, "--ambient-caps", KEPT]
    ended = run(
        words, tmp_path, *namespace, *without, cwd="/proc", RUNTIME_DIRECTORY="", XDG_RUNTIME_DIR="", TMPDIR="/nowhere"
    )
    assert_fails_in_one_line(
        ended, "no usable temporary directory: /nowhere (TMPDIR), /tmp and others", "set TMPDIR to a writable directory"
    )


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ('"$@" --help', "vhostcomm"),
        (f"{' '.join(VDSM_RUN)} --version", "vhostcomm"),
        (f"{QEMU_HOST} -help", "qemu-host"),
    ],
)
def test_output_that_cannot_be_written(words: str, program: str) -> None:
    full = shell(f"{words} >/dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith(f"{program}: standard output: No space left on device; make room")
    closed = shell(f"{words} >&-")
    assert closed.returncode == 1
    assert closed.stderr.startswith(f"{program}: standard output is closed, nothing can be printed; redirect it")
    assert full.stderr.count("\n") == closed.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [[*VHOSTCOMM, "--help"], [*VDSM_RUN, "--version"], [str(QEMU_HOST), "-help"]],
    ids=["vhostcomm", "vdsm_run", "qemu-host"],
)
def test_closed_pipe_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        words, env=ENVIRONMENT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("words", ['"$@" nonsense', f"{QEMU_HOST} -bogus"])
@pytest.mark.parametrize("redirected", ["2>/dev/full", ">&- 2>&-"])
def test_standard_error_that_fails_leaves_the_exit_status(words: str, redirected: str) -> None:
    ended = shell(f"{words} {redirected}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


def test_bugs_keep_their_traceback() -> None:
    assert user_error(RuntimeError("something else")) is None
    group = BaseExceptionGroup("", [OSError(errno.ENOSPC, "full"), ValueError("a bug")])
    assert user_error(group) is None
    assert str(user_error(BaseExceptionGroup("", [OSError(errno.EROFS, "read-only", "/x")]))) == (
        "/x: read-only; choose another place, or mount it writable"
    )
    assert "out of memory" in str(user_error(MemoryError()))
