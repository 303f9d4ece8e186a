"""Builds the wheel and runs the tests against it, installed in a fresh environment: ``python -m tests.wheel``.

What is missing from the wheel is missing here, since nothing of the checkout but the tests and
the captures is on the path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTED = [
    "tests/vchannel",
    "tests/captures",
    "tests/config",
    "tests/daemon/test_serve.py",
    "tests/daemon/test_probe.py",
    "tests/systemd/test_units.py",
]


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vhostcomm-wheel-") as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work, ROOT)
        (wheel,) = work.glob("*.whl")
        venv.create(work / "venv", with_pip=True)
        pip: list[str | Path] = [
            work / "venv/bin/pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            ROOT / "constraints.txt",
        ]
        run(*pip, wheel, "pytest", "pytest-timeout", "hypothesis")
        assert (work / "venv/share/vhostcomm/wireshark/vchannel.lua").is_file()
        elsewhere = work / "elsewhere"
        for name in ("tests", "captures", "protocol/README.md", "docs/systemd.md"):
            source, target = ROOT / name, elsewhere / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        run(
            work / "venv/bin/python", "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *TESTED,
            cwd=elsewhere,
        )  # fmt: skip


if __name__ == "__main__":
    main()
