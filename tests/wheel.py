"""Build the wheel and the sdist, and test the wheel in a new environment: ``python -m tests.wheel``.

``python -m tests.wheel onefile`` builds and tests each program as one file.

Of the checkout, only the tests and captures are on the path, so files that a wheel lacks are missing in its tests. All code
is compared byte by byte with the checkout. Tests of pure code are therefore not repeated. The repeated tests are of parts
that an installation can lack: data files, dependencies, programs, processes. The wheel from the sdist is the same, byte for
byte. `make venv` shows that the build's requirements are complete.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tools.man import pages
from tools.onefile import PROGRAMS

ROOT = Path(__file__).parents[1]

INSTALLED = "tests/installed.py"
ONE_FILE = "tests/onefile.py"
TESTED = [
    INSTALLED,
    "tests/vchannel/test_spec.py",
    "tests/captures/test_golden.py",
    "tests/systemd/test_units.py",
]

CODE = {"vhostcomm": "vhostcomm", "protocol/vchannel": "vchannel", "vdsm_run.py": "vdsm_run.py"}
SHARED = {
    "completions/vhostcomm": "bash-completion/completions/vhostcomm",
    "completions/_vhostcomm": "zsh/site-functions/_vhostcomm",
    "completions/vhostcomm.fish": "fish/vendor_completions.d/vhostcomm.fish",
    "completions/vdsm_run": "bash-completion/completions/vdsm_run",
    "completions/_vdsm_run": "zsh/site-functions/_vdsm_run",
    "completions/vdsm_run.fish": "fish/vendor_completions.d/vdsm_run.fish",
    "protocol/wireshark/vchannel.lua": "vhostcomm/wireshark/vchannel.lua",
}
"""Paths of the checkout's files below an installation's site-packages, and below its prefix's share."""

SDIST = ["captures", "completions", "docs", "protocol", "tests", "tools", "vhostcomm", ".ci"]
"""Folders that an sdist contains unchanged."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True)


def build(what: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist with this environment's packages, which have the tested versions."""
    run(sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", target, source)
    (made,) = target.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return made


def files(below: Path) -> Iterable[Path]:
    """Return the contents of a file or folder, without caches."""
    if below.is_file():
        return [below]
    return [path for path in sorted(below.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_wheel(wheel: Path) -> None:
    """Check that the wheel has exactly the checkout's code and data.

    Raises:
        SystemExit: names the differences.
    """
    found = contents(wheel)
    version = wheel.name.split("-")[1]
    data = f"{wheel.name.rsplit('-', 3)[0]}.data/data/share"
    places = CODE | {source: f"{data}/{target}" for source, target in SHARED.items() if (ROOT / source).exists()}
    wanted = {
        str(Path(target) / path.relative_to(ROOT / source)): path.read_bytes()
        for source, target in places.items()
        for path in files(ROOT / source)
    }
    wanted |= {
        f"{data}/man/man{name[-1]}/{name}": text.encode() for name, text in pages(ROOT / "docs", version).items()
    }
    found = {name: content for name, content in found.items() if ".dist-info/" not in name}
    report(wanted, found, "wheel")


def check_sdist(sdist: Path, work: Path) -> Path:
    """Check that the sdist has the files for tests, documentation and a build; return its unpacked folder."""
    subprocess.run(["tar", "-xf", sdist, "-C", work], check=True)  # extractall's `filter` came with Python 3.11.4
    unpacked = work / sdist.name.removesuffix(".tar.gz")
    wanted = {str(path.relative_to(ROOT)): path.read_bytes() for name in SDIST for path in files(ROOT / name)}
    named = (
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "Containerfile",
        "constraints.txt",
        "pyproject.toml",
        "vdsm_run.py",
    )
    wanted |= {name: (ROOT / name).read_bytes() for name in named}
    found = {str(path.relative_to(unpacked)): path.read_bytes() for path in files(unpacked)}
    report(wanted, {name: found[name] for name in wanted.keys() & found.keys()}, "sdist")
    return unpacked


def report(wanted: dict[str, bytes], found: dict[str, bytes], where: str) -> None:
    differs = [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    for what, names in (
        ("missing", wanted.keys() - found.keys()), ("not ours", found.keys() - wanted.keys()), ("different", differs),
    ):  # fmt: skip
        if names:
            sys.exit(f"the {where} is wrong: {what}: {', '.join(sorted(names))}")


def installed(package: Path, folder: Path, *more: str) -> Path:
    """Install it into a new environment; return the environment's bin."""
    venv.create(folder)  # without pip, whose installation would take as long as everything else
    run(
        sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet",
        "--disable-pip-version-check", "-c", ROOT / "constraints.txt",
        package, "httpx", "pytest", "pytest-timeout", *more,
    )  # fmt: skip
    return folder / "bin"


def tried(programs: Path, elsewhere: Path, *tests: str) -> None:
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(
        [programs / "python", "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *tests],
        cwd=elsewhere, check=True, env=os.environ | {"PATH": path},
    )  # fmt: skip


def check_one_file(work: Path) -> None:
    """Check that each program as one file has the same bytes in two builds, and runs.

    Raises:
        SystemExit: the bytes differ.
        CalledProcessError: a test failed.
    """
    first, second = work / "onefile", work / "onefile-again"
    for target in first, second:
        run(sys.executable, "-m", "tools.onefile", target)
    for program in PROGRAMS:
        if (first / program).read_bytes() != (second / program).read_bytes():
            sys.exit(f"{program}: built twice, it has other bytes the second time")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", ONE_FILE],
        cwd=ROOT, check=True, env=os.environ | {"VHOSTCOMM_ONEFILE": str(first)},
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vhostcomm-wheel-") as folder:
        work = Path(folder)
        wheel = build("wheel", ROOT, work / "direct")
        sdist = build("sdist", ROOT, work / "sdist")
        check_wheel(wheel)
        unpacked = check_sdist(sdist, work)
        if contents(wheel) != contents(build("wheel", unpacked, work / "from-sdist")):
            sys.exit("the wheel that the sdist makes is another than the checkout's")
        elsewhere = work / "elsewhere"
        for name in ("tests", "captures", "protocol/README.md", "docs/systemd.md"):
            source, target = ROOT / name, elsewhere / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        tried(installed(wheel, work / "wheel-venv", "hypothesis"), elsewhere, *TESTED)


if __name__ == "__main__":
    if sys.argv[1:] == ["onefile"]:
        with tempfile.TemporaryDirectory(prefix="vhostcomm-onefile-") as made:
            check_one_file(Path(made))
    else:
        main()
