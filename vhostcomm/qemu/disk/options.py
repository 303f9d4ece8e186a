"""How QEMU opens a disk and presents it to the guest, as values. Pure.

The defaults are those of the genuine host (no host cache, native AIO, detection of zeros) with those of the container
vdsm/virtual-dsm (discard, the rotation rate of an SSD, an I/O thread).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import attrs
from attrs import field, frozen

from vhostcomm.errors import QemuError


class Cache(Enum):
    """The use of the host's page cache for the disk's data; the value is QEMU's word."""

    NONE = "none"
    DIRECTSYNC = "directsync"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    UNSAFE = "unsafe"

    @property
    def is_direct(self) -> bool:
        """Whether the mode needs O_DIRECT."""
        return self in {Cache.NONE, Cache.DIRECTSYNC}

    @property
    def through_pages(self) -> Cache:
        """The equally safe mode that works without O_DIRECT."""
        return {Cache.NONE: Cache.WRITEBACK, Cache.DIRECTSYNC: Cache.WRITETHROUGH}.get(self, self)


class Aio(Enum):
    """How QEMU waits for the disk; the value is QEMU's word. `NATIVE` needs a direct cache mode."""

    NATIVE = "native"
    IO_URING = "io_uring"
    THREADS = "threads"


class DetectZeroes(Enum):
    """The handling of writes of zeros: `ON` makes the file system store no data, `UNMAP` frees the space."""

    ON = "on"
    OFF = "off"
    UNMAP = "unmap"


_SSD: Final = 1
_ROTATION_MAX: Final = 0xFFFE
_SERIAL: Final = re.compile(r"[A-Za-z0-9_.-]{1,36}")
"""The serials that QEMU, libvirt and Proxmox VE all accept; SCSI shows the guest 36 characters."""


@frozen
class DiskOptions:
    """How a disk is opened and presented.

    Args:
        cache: the use of the host's page cache.
        aio: None for `Aio.NATIVE` with a direct cache mode, else `Aio.THREADS`.
        discard: whether the guest's discards free space in the image.
        detect_zeroes: the handling of writes of zeros.
        rotation_rate: per minute; 1 for an SSD, 0 for unknown.
        serial: for the guest; empty for QEMU's own.
        iothread: whether the disk's controller has its own thread in QEMU.
    """

    cache: Cache = Cache.NONE
    aio: Aio | None = None
    discard: bool = True
    detect_zeroes: DetectZeroes = DetectZeroes.ON
    rotation_rate: int = field(default=_SSD)
    serial: str = field(default="")
    iothread: bool = True

    def __attrs_post_init__(self) -> None:
        if self.aio is Aio.NATIVE and not self.cache.is_direct:
            raise QemuError(
                f"aio=native and cache={self.cache.value}: native AIO needs cache=none or directsync; use aio=threads"
            )
        if self.detect_zeroes is DetectZeroes.UNMAP and not self.discard:
            raise QemuError("detect-zeroes=unmap and discard=ignore: freeing space needs discard=unmap")

    @property
    def effective_aio(self) -> Aio:
        """The method that QEMU is started with."""
        return self.aio or (Aio.NATIVE if self.cache.is_direct else Aio.THREADS)

    def without_direct(self) -> DiskOptions:
        """Return the best options without O_DIRECT."""
        aio = None if self.aio is Aio.NATIVE else self.aio
        return attrs.evolve(self, cache=self.cache.through_pages, aio=aio)

    @rotation_rate.validator
    def _check_rotation_rate(self, _: object, value: int) -> None:
        if value not in {0, _SSD} and not 0x401 <= value <= _ROTATION_MAX:
            raise QemuError(f"rotation-rate={value}: expected 0 (unknown), 1 (an SSD), or {0x401} to {_ROTATION_MAX}")

    @serial.validator
    def _check_serial(self, _: object, value: str) -> None:
        if value and not _SERIAL.fullmatch(value):
            raise QemuError(f"serial={value!a}: expected 1 to 36 of A-Za-z0-9_.-")


_WORDS: Final[dict[str, dict[str, object]]] = {
    "cache": {each.value: each for each in Cache},
    "aio": {each.value: each for each in Aio},
    "discard": {"unmap": True, "on": True, "ignore": False, "off": False},
    "detect-zeroes": {each.value: each for each in DetectZeroes},
    "iothread": {"on": True, "off": False},
}
NAMES: Final = ("cache", "aio", "discard", "detect-zeroes", "rotation-rate", "serial", "iothread")
_WITH_OPTIONS: Final = re.compile(rf"(?P<path>.+?)(?P<options>(?:,(?:{'|'.join(NAMES)})=[^,/]*)+)", re.DOTALL)


def split(disk: str) -> tuple[str, str]:
    """Split ``PATH,NAME=VALUE,…`` into path and options. Other commas belong to the path."""
    match = _WITH_OPTIONS.fullmatch(disk)
    return (match["path"], match["options"][1:]) if match else (disk, "")


def parse(text: str, base: DiskOptions | None = None) -> DiskOptions:
    """Parse ``NAME=VALUE,…``; the other options are those of `base`.

    Raises:
        QemuError: an unknown name or value, or incompatible values.
    """
    found: dict[str, object] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        known = _WORDS.get(name)
        if not equals or name not in NAMES:
            raise QemuError(f"disk option {word!a}: expected NAME=VALUE, where NAME is one of {', '.join(NAMES)}")
        if known is not None and value not in known:
            raise QemuError(f"disk option {name}={value}: expected one of {', '.join(known)}")
        if name == "rotation-rate" and not (value.isascii() and value.isdigit()):
            raise QemuError(f"disk option {word}: expected rotations per minute; 1 for an SSD")
        made = int(value) if name == "rotation-rate" else value
        found[name.replace("-", "_")] = known[value] if known is not None else made
    if "cache" in found and base is not None and base.aio is Aio.NATIVE:
        found.setdefault("aio", None)
    return attrs.evolve(base or DiskOptions(), **found)  # type: ignore[arg-type]


def parse_shared(text: str) -> DiskOptions:
    """Parse the options of several disks, like `parse`.

    Raises:
        QemuError: as `parse`, or there is a serial.
    """
    found = parse(text)
    if found.serial:
        raise QemuError(
            f"serial={found.serial}: only one disk can have it; append it to that disk's path, after a comma"
        )
    return found
