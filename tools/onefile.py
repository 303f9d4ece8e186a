"""Build each program as one file with everything that it imports: ``python -m tools.onefile [DIRECTORY]``.

The file is a zip archive after a `#!` line. It has all sources, for any Python from 3.11, and one directory of bytecode
for each Python of Debian 12 and 13: Python reads no `__pycache__` in an archive, and compiling takes three quarters of
a start. The same sources and packages give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

PROGRAMS: Final = ("qemu-host", "vhostcomm")

DEBIAN: Final = {"3.11": "bookworm", "3.13": "trixie"}
"""The Pythons whose bytecode is included, and their Debian releases."""

PACKAGES: Final = ("python{}-minimal", "libpython{}-minimal", "libpython{}-stdlib", "libc6", "libexpat1", "zlib1g")
"""Packages of an unpacked interpreter for compiling."""

NOT_NEEDED: Final = ("bin", "*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED",
    "*.dist-info/WHEEL", "*.dist-info/direct_url.json", "*.dist-info/entry_points.txt", "**/*.pyi", "**/py.typed", "**/__pycache__",
    "**/tests", "**/_tests", "rich_rst", "pygments/styles/[!_]*", "pygments/lexers/[!_]*", "pygments/formatters/[!_]*", "pygments/sphinxext.py",
)  # fmt: skip
"""Omitted: files for installers, type checkers and tests, and unused languages for highlighting."""

READ_AS_SOURCE: Final = ("vhostcomm/qemu/die_with_parent.py",)
"""Sources that another interpreter executes; they are kept beside the bytecode."""

EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The date of every member: the earliest that a zip archive can have."""


def main() -> None:
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "dist"
    target.mkdir(parents=True, exist_ok=True)
    with prepared() as (sources, _, trees):
        write(target, PROGRAMS, sources, trees)
    for program in PROGRAMS:
        print(f"{target / program}: {(target / program).stat().st_size / 1e6:.1f} MB")  # noqa: T201


@contextmanager
def prepared() -> Iterator[tuple[Path, Path, dict[str, Path]]]:
    """Yield the directory of all sources, that of a prefix's share, and those of bytecode by their names in the archive."""
    with tempfile.TemporaryDirectory(prefix="vhostcomm-onefile-") as folder:
        work = Path(folder)
        sources = work / "sources"
        install(sources)
        shared = (sources / "share").rename(work / "share")
        yield sources, shared, {f"cp{version.replace('.', '')}": compiled(sources, work, version) for version in DEBIAN}


def install(target: Path) -> None:
    """Install vhostcomm and its dependencies into a directory, with the tested versions.

    Raises:
        SystemExit: a dependency is not pure Python.
    """
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
         "--no-build-isolation", "-c", ROOT / "constraints.txt", "--target", target, f"{ROOT}[cluster]"],
        check=True,
    )  # fmt: skip
    for pattern in NOT_NEEDED:
        for path in list(target.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if native := [str(path.relative_to(target)) for path in target.rglob("*.so")]:
        sys.exit(f"not pure Python, so of no use in an archive: {', '.join(native)}")


def compiled(sources: Path, work: Path, version: str) -> Path:
    """Copy the sources with bytecode in their place."""
    tree = work / version
    shutil.copytree(sources, tree, ignore=shutil.ignore_patterns("*.dist-info"))
    command, environment = interpreter(version)
    # Hash-based and unchecked, so that dates and sources don't matter. One process, so that the same input gives the
    # same bytes.
    subprocess.run(
        [*command, "-S", "-m", "compileall", "-q", "-b", "-f", "-j", "1", "--invalidation-mode", "unchecked-hash",
         "-s", tree, "-p", "vhostcomm", tree],
        check=True, env=environment | {"PYTHONHASHSEED": "0"},
    )  # fmt: skip
    for path in tree.rglob("*.py"):
        if str(path.relative_to(tree)) not in READ_AS_SOURCE:
            path.unlink()
    return tree


def interpreter(version: str) -> tuple[list[str | Path], dict[str, str]]:
    """Return the command and environment of a CPython version: this one, or Debian's, unpacked into the cache."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return [sys.executable], environment
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vhostcomm"
    root = Path(os.environ.get("VHOSTCOMM_CACHE") or cache) / f"python-{DEBIAN[version]}"
    if not root.is_dir():
        packages = [package.format(version) for package in PACKAGES]
        subprocess.run([ROOT / "tools/unpack.sh", DEBIAN[version], root, *packages], check=True)
    # With its own C library, because an older release lacks symbols that it needs.
    (libc,) = root.rglob("libc.so.6")
    (loader,) = libc.parent.glob("ld-linux-*")
    libraries = f"{libc.parent}:{root / 'usr/lib' / libc.parent.name}"
    return (
        [loader, "--library-path", libraries, root / "usr/bin" / f"python{version}"],
        environment | {"PYTHONHOME": str(root / "usr")},
    )


def write(
    target: Path, programs: Iterable[str], sources: Path, trees: dict[str, Path], python: str = "/usr/bin/env python3"
) -> None:
    """Write the archives of programs for an interpreter into a directory, and rename each when it is complete."""
    start = (ROOT / "tools/onefile_main.py").read_text()
    known = {f"{tree[2]}.{tree[3:]}": tree for tree in trees}
    start = start.replace("TREES = {}", f"TREES = {known!r}", 1)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target) as folder:
        # Only the start differs between programs. Compressing the rest takes a quarter of a build.
        common = Path(folder, "common")
        common.write_text(f"#!{python}\n")
        with zipfile.ZipFile(common, "a") as archive:
            for prefix, tree in {"": sources, **{f"{name}/": tree for name, tree in trees.items()}}.items():
                for path in filter(Path.is_file, sorted(tree.rglob("*"))):
                    put(archive, prefix + str(path.relative_to(tree)), path.read_bytes())
        for program in programs:
            partial = Path(shutil.copyfile(common, Path(folder, program)))
            with zipfile.ZipFile(partial, "a") as archive:
                put(
                    archive, "__main__.py", start.replace('DEFAULT = "vhostcomm"', f'DEFAULT = "{program}"', 1).encode()
                )
            partial.chmod(0o755)
            partial.replace(target / program)


def put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, EPOCH)
    member.external_attr = 0o644 << 16
    member.create_system = 3  # Unix, on any system
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
