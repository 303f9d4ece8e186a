"""Make the machine of a snippet that prints a whole machine: from flags and the guest's file."""

from __future__ import annotations

from typing import Any

from vhostcomm.cli.machine_options import Wanted, machine_of
from vhostcomm.cli.snippet_target import Served
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError
from vhostcomm.qemu import Accelerator, Machine
from vhostcomm.snippet import channel_of


def machine(found: Served, **flags: Any) -> Machine:
    """Make the machine of the guest's file, overridden by flags, and not adapted to this host.

    Args:
        found: the guest.
        flags: of `Wanted`; None for those that weren't given.

    Raises:
        UsageError: there is no boot disk, or flags are incompatible.
    """
    guest, said = found.guest, found.guest.machine
    given = {name: value for name, value in flags.items() if value is not None}
    memory = f"{said.memory >> 20}M" if said.memory else "1G"
    described: dict[str, Any] = {
        "boot": said.boot or None, "system": said.system or None, "data": said.data, "memory": memory,
        "cpus": guest.identity.vcpus, "net": said.net or "user", "mac": said.mac or None,
        "disk_options": said.disk_options, "cpu_model": said.cpu_model or None, "hugepages": said.hugepages or None,
    }  # fmt: skip
    others: dict[str, Any] = {
        "snapshot": False, "name": guest.name, "accel": "kvm", "machine": "pc", "forward": (), "serial_console": "none",
        "qemu": "", "qemu_data": (), "direct_kernel": None, "initrd": None, "append": "", "lock_memory": False,
        "no_reboot": False, "grace": 90.0, "restart": "no", "on": (), "extra": (),
    }  # fmt: skip
    wanted = Wanted(**(others | described | given))
    if not wanted.boot:
        raise UsageError(
            "a whole machine needs a boot disk: give --boot, --system and --data as for run, or a folder of `vhostcomm install`"
        )
    try:
        return machine_of(
            wanted,
            Config(found.config.host, (guest,), found.config.service),
            Accelerator(wanted.accel),
            channel_of(guest),
        )
    except QemuError as error:
        raise UsageError(str(error)) from None
