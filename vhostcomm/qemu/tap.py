"""Adapt a tap interface to this host: vhost, and several queues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from vhostcomm.qemu.machine import TapNet

_VHOST: Final = "/dev/vhost-net"
_FLAGS: Final = "/sys/class/net/{interface}/tun_flags"
_MULTI_QUEUE: Final = 0x100
"""A flag of tap interfaces, in <linux/if_tun.h>."""
_QUEUES_MAX: Final = 8
"""Maximum queues by default: each has a kernel thread with vhost, and more were not measured to help."""


def fitted(net: TapNet, cpus: int) -> TapNet:
    """Fill in the missing settings: vhost if it can be opened, and one queue for each virtual CPU.

    An interface made for several queues can't be opened for only one, nor the reverse.
    """
    vhost = os.access(_VHOST, os.R_OK | os.W_OK) if net.vhost is None else net.vhost
    queues = net.queues or (max(2, min(cpus, _QUEUES_MAX)) if has_several_queues(net.interface) else 1)
    return attrs.evolve(net, vhost=vhost, queues=queues)


def has_several_queues(interface: str) -> bool:
    """Return whether a tap interface was made with ``multi_queue``."""
    try:
        flags = int(Path(_FLAGS.format(interface=interface)).read_text(), 16)
    except (OSError, ValueError):  # no such interface; QEMU reports that
        return False
    return bool(flags & _MULTI_QUEUE)
