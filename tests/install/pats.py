"""Stand-in `.pat` files: names and nesting of a genuine one, with the content of a test."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

MTIME: Final = 1_650_000_000
NAME: Final = "DSM_VirtualDSM_72806.pat"
BOOT_NAME: Final = "synology_kvmx64_virtualdsm.bin.zip"

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Member:
    made = tarfile.TarInfo(name)
    made.size, made.mode, made.uid, made.gid, made.mtime = len(data), mode, uid, gid, MTIME
    return made, data


def other(name: str, kind: bytes, target: str = "", *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Member:
    """A folder, a link or a device, by tarfile's type."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.uid, made.gid, made.mtime = kind, target, mode, uid, gid, MTIME
    return made, b""


def folder(name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Member:
    return other(name, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def tar(members: Iterable[Member]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def xz(members: Iterable[Member]) -> bytes:
    return lzma.compress(tar(members), preset=0)


def zipped(**files: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return written.getvalue()


BOOT: Final = bytes(510) + b"\x55\xaa" + bytes(range(256)) * 512 + bytes(4 << 20) + b"end"

HDP: Final = [folder("./usr/lib"), file("./usr/lib/libhdp.so", b"hdp" * 1000), file("./etc/both", b"of hdp", uid=2)]
INDEX: Final = [file("./index.db", b"index", mode=0o640, gid=105)]
HDA: Final = [
    folder("./"),
    folder("./etc", mode=0o750, uid=3, gid=4),
    file("./etc/both", b"of hda1"),
    file("./etc/shadow", b"root:*:\n", mode=0o400, gid=42),
    file('./etc/na"me with space', b"", uid=70_000, gid=80_000),
    folder("./bin"),
    file("./bin/su", b"\x7fELF", mode=0o4755),
    other("./bin/su-again", tarfile.LNKTYPE, "./bin/su"),
    other("./bin/sh", tarfile.SYMTYPE, "/usr/bin/bash", uid=5),
    other("./lib", tarfile.SYMTYPE, "usr/lib"),
    folder("./tmp", mode=0o1777),
    file("./no-rights", b"secret", mode=0),
    file("./grün-\udcff", b"bytes that are not UTF-8"),
]


def parts(**changes: bytes | None) -> dict[str, bytes]:
    """Return the members of the `.pat` by name; `changes` replaces `version`, `boot`, `hdp`, …"""
    found = {
        "version": ("VERSION", b'buildnumber="72806"\n'),
        "boot": (BOOT_NAME, zipped(**{"synology_kvmx64_virtualdsm.bin": BOOT})),
        "hdp": ("synohdpack_img.txz", xz(HDP)),
        "index": ("indexdb.txz", xz(INDEX)),
        "hda": ("hda1.tgz", xz(HDA)),
    }
    return {name: data for key, (name, made) in found.items() if (data := changes.get(key, made)) is not None}


def write(path: Path, members: Mapping[str, bytes], more: Iterable[Member] = ()) -> Path:
    packages = [
        folder("packages"),
        file("packages/FileStation-1.spk", b"package", uid=6, gid=7),
        file("packages/ActiveInsight-1.spk", b"left out"),
    ]
    path.write_bytes(tar([*(file(*each) for each in members.items()), *packages, *more]))
    return path


def pat(path: Path, **changes: bytes | None) -> Path:
    return write(path / NAME, parts(**changes))
