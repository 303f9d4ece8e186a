"""Minimal Debian folders, made once a week, and copies of them that a test may change."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.needs import need

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = Path(os.environ.get("VHOSTCOMM_CACHE") or Path(os.environ["XDG_CACHE_HOME"]) / "vhostcomm")
MIRROR: Final = "apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1"


def need_root() -> None:
    """Skip the running test for a user who may not make folders of Debian and mount them."""
    if os.geteuid() != 0:
        pytest.skip("missing right: root, to make and mount folders of Debian")


def debian(name: str, packages: Sequence[str], suite: str = "bookworm") -> Path:
    """A folder of a Debian release with these packages, from the cache."""
    need_root()
    need("mmdebstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(" ".join((suite, *packages)).encode()).hexdigest()[:8]
    folder = CACHE / f"hosts-{name}-{time.strftime('%G-%V')}-{wanted}"
    with (CACHE / f"hosts-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        for old in CACHE.glob(f"hosts-{name}-*"):
            shutil.rmtree(old)
        mirror = subprocess.run(["sh", "-c", MIRROR], capture_output=True, text=True, check=True).stdout.strip()
        if not mirror:
            pytest.skip("missing mirror: apt knows none; run apt-get update")
        made = folder.with_name(f"hosts-{name}-new")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", suite]
        subprocess.run([*command, made, mirror], check=True)
        made.rename(folder)
    return folder


@contextmanager
def copy_of(folder: Path, work: Path) -> Iterator[Path]:
    """A copy of a folder, as an overlay file system. Changes don't reach the folder, and are removed at the end."""
    places = {name: work / name for name in ("upper", "work", "root")}
    for each in places.values():
        each.mkdir(parents=True)
    options = f"lowerdir={folder},upperdir={places['upper']},workdir={places['work']}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, places["root"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"missing right: to mount an overlay file system: {mounted.stderr.strip()}")
    try:
        yield places["root"]
    finally:
        subprocess.run(["umount", places["root"]], check=True)
        for each in places.values():  # pytest keeps the folders of three runs
            shutil.rmtree(each)


def one_file(folder: Path) -> Path:
    """vhostcomm as one file."""
    if made := os.environ.get("VHOSTCOMM_ONEFILE"):
        return Path(made) / "vhostcomm"
    subprocess.run([sys.executable, "-m", "tools.onefile", folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder / "vhostcomm"
