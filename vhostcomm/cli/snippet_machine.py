"""Make the machine of a snippet that prints a whole machine: from flags and the guest's file."""

from __future__ import annotations

from vhostcomm.cli.machine_flags import MachineFlags
from vhostcomm.cli.machine_options import machine_of
from vhostcomm.cli.snippet_target import Served
from vhostcomm.config.models import Config
from vhostcomm.errors import QemuError, UsageError
from vhostcomm.qemu.machine import Accelerator, Machine
from vhostcomm.snippet import channel_of


def machine(found: Served, flags: MachineFlags, extra: tuple[str, ...] = ()) -> Machine:
    """Make the machine of the guest's file, overridden by flags, and not adapted to this host.

    Args:
        found: the guest.
        flags: the machine's flags, with an accelerator.
        extra: QEMU's own arguments.

    Raises:
        UsageError: there is no boot disk, or flags are incompatible.
    """
    guest = found.guest
    if not (flags.boot or guest.machine.boot):
        raise UsageError(
            "a whole machine needs a boot disk: give --boot, --system and --data as for run, or a directory of `vhostcomm install`"
        )
    config = Config(found.config.host, (guest,), found.config.service)
    try:
        return machine_of(flags, config, Accelerator(flags.accel), channel_of(guest), extra)
    except QemuError as error:
        raise UsageError(str(error)) from None
