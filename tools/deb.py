"""Build the Debian package, for Debian 12 and 13 alike: ``python -m tools.deb [DIRECTORY]``.

dpkg-deb packs a staged tree: the program as one file, units, man pages, completions, the dissector and a commented
configuration. The same sources and ``SOURCE_DATE_EPOCH``, the date of every file, give the same bytes.
"""

from __future__ import annotations

import calendar
import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tools.onefile import EPOCH, ROOT, prepared, write
from vhostcomm import __version__
from vhostcomm.config.template import template
from vhostcomm.systemd import units

DEBIAN: Final = ROOT / "tools/debian"

UNITS: Final = (units.SERVE, units.SOCKET, units.RUN)
"""The units that are valid for any guest. A unit by UUID has a user of its own: `vhostcomm snippet systemd` prints it."""

LINKS: Final = {
    "usr/bin/qemu-host": "vhostcomm",
    "usr/bin/vdsm_run": "vhostcomm",
    # Wireshark looks only in its architecture's directory for plugins.
    **{
        f"usr/lib/{each}-linux-gnu/wireshark/plugins/vchannel.lua": "../../../../share/vhostcomm/wireshark/vchannel.lua"
        for each in ("aarch64", "x86_64")
    },
}

APACHE: Final = "Apache License"
"""Licence files with this title become a reference to Debian's own copy."""


def main() -> None:
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "dist"
    target.mkdir(parents=True, exist_ok=True)
    made = target / f"vhostcomm_{__version__}_all.deb"
    date = int(os.environ.get("SOURCE_DATE_EPOCH") or calendar.timegm(EPOCH))
    with tempfile.TemporaryDirectory(prefix="vhostcomm-deb-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)
        stage(tree, date)
        control(tree)
        subprocess.run(
            ["/usr/bin/dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, made],
            env=os.environ | {"SOURCE_DATE_EPOCH": str(date)}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB")  # noqa: T201


def stage(tree: Path, date: int) -> None:
    """Write all installed files below a directory."""
    with prepared() as (sources, shared, trees):
        program = tree / "usr/bin/vhostcomm"
        program.parent.mkdir(parents=True)
        # Not the first in PATH, which may be an environment's.
        write(program.parent, [program.name], sources, trees, python="/usr/bin/python3")
        put(tree / "usr/share/doc/vhostcomm/copyright", licences(sources).encode())
        for file in filter(Path.is_file, shared.rglob("*")):
            # Debian's zsh has another directory for packages.
            place = tree / "usr/share" / str(file.relative_to(shared)).replace("site-functions", "vendor-completions")
            if file.is_relative_to(shared / "man"):
                pack(place, file.read_text())
            else:
                put(place, file.read_bytes())
    put(tree / "usr/share/lintian/overrides/vhostcomm", (DEBIAN / "lintian-overrides").read_bytes())
    for unit in UNITS:
        put(tree / "usr/lib/systemd/system" / unit, units.text(unit).encode())
    # Sections of guests are examples too, so the file serves none as it is.
    put(tree / units.CONFIG.lstrip("/"), template().replace("\n[guests.", "\n# [guests.").encode())
    doc = tree / "usr/share/doc/vhostcomm"
    pack(doc / "changelog", changelog(date))
    pack(doc / "NEWS.md", (ROOT / "CHANGELOG.md").read_text())
    for path, to in LINKS.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(to)


def control(tree: Path) -> None:
    """Write the control files of a staged tree."""
    found = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(-(-path.stat().st_size // 1024) for path in found)
    text = (DEBIAN / "control").read_text().replace("@VERSION@", __version__).replace("@SIZE@", str(size))
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in found]  # noqa: S324 - dpkg's
    put(tree / "DEBIAN/control", text.encode())
    put(tree / "DEBIAN/md5sums", "".join(sums).encode())
    put(tree / "DEBIAN/conffiles", f"{units.CONFIG}\n".encode())
    for script in ("postinst", "prerm", "postrm"):
        put(tree / "DEBIAN" / script, (DEBIAN / script).read_bytes(), 0o755)
    for folder in (path for path in tree.rglob("*") if path.is_dir()):
        folder.chmod(0o755)


def changelog(date: int) -> str:
    """Return Debian's changelog: one entry, which names the project's own."""
    when = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(date))
    (maintainer,) = re.findall("^Maintainer: (.*)", (DEBIAN / "control").read_text(), re.MULTILINE)
    return (
        f"vhostcomm ({__version__}) unstable; urgency=medium\n\n"
        "  * The changes are in /usr/share/doc/vhostcomm/NEWS.md.gz.\n\n"
        f" -- {maintainer}  {when}\n"
    )


def licences(sources: Path) -> str:
    """Return the licences of vhostcomm and of each package in the program's file."""
    parts = [f"vhostcomm\n\n{(ROOT / 'LICENSE').read_text()}", "/usr/bin/vhostcomm contains the following packages.\n"]
    for info in sorted(sources.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        if name == "vhostcomm":
            continue
        for path in sorted(info.rglob("*")):
            if path.is_file() and path.name.upper().startswith(("LICEN", "NOTICE", "AUTHORS")):
                text = path.read_text()
                if APACHE in text and len(text) > 5000:
                    text = "Apache License, version 2.0: see /usr/share/common-licenses/Apache-2.0\n"
                parts.append(f"{name} {version}, {path.name}\n\n{text.strip()}\n")
    return ("\n" + "-" * 80 + "\n\n").join(parts)


def put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def pack(path: Path, text: str) -> None:
    """Write a compressed file without a date."""
    put(path.with_name(f"{path.name}.gz"), gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
