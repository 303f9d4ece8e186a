"""The settings of the machine that the launcher starts for a guest, as far as they are in the file. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.config import values
from vhostcomm.config.identity import setting

CONFIGURATION: Final = "vhostcomm.toml"
"""The name of the file in a guest's directory."""

_TARGET: Final = "naa."
"""Prefix of a vhost-scsi target's name; anything else is a path."""


@frozen
class MachineSettings:
    """The machine that `vhostcomm run` starts for a guest; flags or defaults decide about empty values."""

    boot: str = setting(
        "",
        values.PATH,
        "The boot disk; a relative path is relative to the file. Options of the disk follow a comma, as in `disk_options`.",
        "synoboot.img",
        metavar="DISK",
    )
    system: str = setting(
        "", values.PATH, "The system disk; path and options as for `boot`.", "system.img", metavar="DISK"
    )
    data: tuple[str, ...] = setting(
        (),
        values.PATHS,
        "The data disks, in their order; paths and options as for `boot`.",
        '["data.img"]',
        metavar="DISK",
    )
    disk_options: str = setting(
        "",
        values.STRING,
        "Options of all disks: cache, aio, discard, detect-zeroes, rotation-rate, iothread. A serial belongs to a single disk.",
        "cache=none,aio=io_uring",
        metavar="OPTIONS",
    )
    mac: str = setting("", values.MAC, "The guest's MAC address.", "02:11:32:00:00:01")
    memory: int = setting(1 << 30, values.MEMORY, "The guest's memory.", "2G")
    cpu_model: str = setting("", values.STRING, "QEMU's processor model.", "Skylake-Client", metavar="MODEL")
    hugepages: str = setting(
        "", values.PATH, "A hugetlbfs directory for the guest's memory, or auto.", "auto", metavar="DIRECTORY"
    )
    net: str = setting(
        "",
        values.STRING,
        "The network: user, passt, tap=INTERFACE[,vhost=on|off][,queues=N], bridge=BRIDGE or none.",
        "user",
        metavar="NET",
    )
    forward: tuple[str, ...] = setting(
        (),
        values.STRINGS,
        "Ports of this host that lead to the guest; with the network user or passt.",
        '["5000:5000"]',
        metavar="FORWARD",
    )


def beside(folder: Path, key: str, value: object) -> object:
    """Return a setting's value with relative disk paths placed in a directory, that of the file with the setting."""

    def placed(path: str) -> str:
        return path if not path or path.startswith(_TARGET) else str(folder / path)

    if isinstance(value, str) and key in {"boot", "system"}:
        return placed(value)
    return tuple(map(placed, value)) if isinstance(value, tuple) and key == "data" else value
