"""The configuration file of an installed guest."""

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
    """Return the directory's name if it is a valid name for a guest, else a default."""
    try:
        return values.name(folder.name)
    except ValueError:
        return _DEFAULT_NAME


def derived_mac(name: str) -> str:
    """Derive a locally administered MAC address, under 02:11:32, from the guest's name.

    The container vdsm/virtual-dsm derives the same one from its host name, unless its directory has an address.
    """
    digest = hashlib.md5(f"{name}\n".encode(), usedforsecurity=False).digest()
    return f"02:11:32:{digest[2:5].hex(':')}"


def configuration(name: str, pat: str, disks: Mapping[str, str], mac: str, disk_options: str = "") -> str:
    """Return the text of the file.

    Args:
        name: of the guest.
        pat: the installed file.
        disks: the files of the disks synoboot, system and data; relative to the configuration file.
        mac: the guest's MAC address.
        disk_options: of all disks; empty for the defaults.
    """
    options = f"disk_options = {json.dumps(disk_options)}\n" if disk_options else ""
    return f"""\
# A guest of vhostcomm, installed from {pat}.
#
# Start it: vhostcomm run DIRECTORY, with the directory of this file. Flags override this file.
# Commented-out keys show placeholders; `vhostcomm config init` writes a file with every key.

[host]
# serial = "{ZERO_SERIAL}"
# model = "Virtualhost"

[guests.{values.key(name)}]
# serial = "{ZERO_SERIAL}"
# vcpus = 1

# Its disks (relative to this file), network and memory. Keep the MAC address: DHCP servers identify the guest by it.
[guests.{values.key(name)}.machine]
boot = {json.dumps(disks["synoboot"])}
system = {json.dumps(disks["system"])}
data = [{json.dumps(disks["data"])}]
{options}mac = "{mac}"
memory = "2G"
net = "user"
forward = ["5000:5000"]
"""
