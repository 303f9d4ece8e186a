"""The imports of a verb, which determine its start time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

HEAVY: Final = {
    "asyncio", "cyclopts", "email", "h11", "httpcore", "httpx", "pcapng", "prometheus_client", "pygments",
    "rich", "ssl", "starlette", "structlog", "trio",
}  # fmt: skip
"""Packages that delay a start by more than a few milliseconds."""

ROOMS: Final = {
    "capture", "channel", "cluster", "control", "daemon", "install", "launcher", "log", "probe", "qemu", "snippet",
}  # fmt: skip
"""Our own packages that few verbs need."""

GROUND: Final = {"asyncio", "ssl", "structlog", "trio"}
"""trio and structlog, and what they import themselves."""

SERVING: Final = {".capture", ".channel", ".cluster", ".control", ".daemon", ".log"}


def imported(*words: str, cwd: Path) -> set[str]:
    """Return the packages that a verb has imported at its end; packages of vhostcomm as `.PACKAGE`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vhostcomm", *words],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    # A failed import also has a line, but its submodules have none.
    packages = {module.partition(".")[0] for module in modules if "." in module}
    assert "vhostcomm" in packages, done.stderr[-500:]
    rooms = {"." + module.split(".")[1] for module in modules if module.startswith("vhostcomm.")}
    return (packages & HEAVY) | (rooms & {f".{room}" for room in ROOMS})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--version"], set()),
        (["serve", "--sock", "/no/such/folder/at/all/nas", "--control", "none"], {"cyclopts"} | GROUND | SERVING),
        (["guests", "--control", "/no/such/control.sock"], {"cyclopts", "email", "ssl", ".control"}),
        (["config", "init"], {"cyclopts"}),
        (["probe", "--sock", "./nobody"], {"cyclopts", ".probe"}),
        (["capture", "show", "./missing"], {"cyclopts", ".capture"}),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_verb_imports_what_it_uses(words: list[str], allowed: set[str], tmp_path: Path) -> None:
    assert imported(*words, cwd=tmp_path) <= allowed


@pytest.mark.slow
def test_a_member_of_a_cluster_starts_without_the_server_for_http(tmp_path: Path) -> None:
    program = "import sys, vhostcomm.daemon.membership; print(*sorted({'h11', 'starlette'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "\n"


@pytest.mark.slow
def test_the_server_for_http_is_imported_in_a_thread(tmp_path: Path) -> None:
    program = (
        "import sys; from vhostcomm.control import surface; surface._import(); before = set(sys.modules)\n"
        "import vhostcomm.control.app, vhostcomm.control.api, vhostcomm.control.server\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "\n"
