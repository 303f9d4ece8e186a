"""Find huge pages of this host for a guest's memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_POOLS: Final = "/sys/kernel/mm/hugepages"
_MOUNTS: Final = "/proc/self/mounts"
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def find(memory: int, *, mounts: str = _MOUNTS, pools: str = _POOLS) -> tuple[str, str]:
    """Find a hugetlbfs directory with enough free pages for `memory` MiB; also return the reason if there is none."""
    problems = []
    for line in Path(mounts).read_text().splitlines():
        _, folder, kind, settings = line.split()[:4]
        if kind != "hugetlbfs":
            continue
        folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), folder)
        size = _page_size(settings)
        if not os.access(folder, os.W_OK):
            problems.append(f"{folder} can't be written to")
        elif (free := _free(pools, size)) * size < memory << 20:
            problems.append(f"{folder} has {free * size >> 20} MiB free of the {memory} MiB")
        else:
            return folder, ""
    return "", "; ".join(problems) or "no hugetlbfs is mounted"


def _page_size(settings: str) -> int:
    found = re.search(r"pagesize=([0-9]+)([KMG]?)", settings)
    return int(found[1]) * _UNITS[found[2]] if found else 2 << 20


def _free(pools: str, size: int) -> int:
    try:
        return int(Path(pools, f"hugepages-{size >> 10}kB", "free_hugepages").read_text())
    except (OSError, ValueError):
        return 0
