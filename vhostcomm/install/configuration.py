"""The configuration file of a guest that was installed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vhostcomm.config import values
from vhostcomm.config.identity import ZERO_SERIAL

_DEFAULT_NAME: Final = "vdsm"


def guest_name(folder: Path) -> str:
    """The guest's name: its folder's, if that can be a name."""
    try:
        return values.name(folder.name)
    except ValueError:
        return _DEFAULT_NAME


def derived_mac(name: str) -> str:
    """A MAC address under 02:11:32, which is locally administered, out of the guest's name.

    The container vdsm/virtual-dsm derives the same one from its host name, where it has no address in its folder yet.
    """
    digest = hashlib.md5(f"{name}\n".encode(), usedforsecurity=False).digest()
    return f"02:11:32:{digest[2:5].hex(':')}"


def configuration(name: str, pat: str, disks: Mapping[str, str], mac: str, disk_options: str = "") -> str:
    """The whole file.

    Args:
        name: the guest's.
        pat: the file that was installed.
        disks: the files of the disks synoboot, system and data; relative to the file itself.
        mac: the guest's MAC address.
        disk_options: of all disks; empty for the defaults.
    """
    options = f"disk_options = {json.dumps(disk_options)}\n" if disk_options else ""
    key = name if "." not in name else json.dumps(name)
    return f"""\
# A guest of vhostcomm, installed from {pat}.
#
# Start it: vhostcomm run FOLDER, with the folder that this file is in. Flags override this file.
# Lines that begin with # show placeholders; `vhostcomm config init` writes a file with every key.

[host]
# serial = "{ZERO_SERIAL}"
# model = "Virtualhost"

[guests.{key}]
# serial = "{ZERO_SERIAL}"
# vcpus = 1

# Its disks (relative to this file), its network, its memory. Keep the MAC address: the guest is known by it.
[guests.{key}.machine]
boot = {json.dumps(disks["synoboot"])}
system = {json.dumps(disks["system"])}
data = [{json.dumps(disks["data"])}]
{options}mac = "{mac}"
memory = "2G"
net = "user"
forward = ["5000:5000"]
"""
