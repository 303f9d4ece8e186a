"""Build QEMU's arguments for the network of the card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from vhostcomm.qemu.machine import BridgeNet, Net, TapNet, UserNet
from vhostcomm.qemu.words import options

NETDEV: Final = "hostnet0"
"""The id of the network."""


def netdev(net: Net) -> Iterator[str]:
    """Build the arguments for the network of the card."""
    match net:
        case UserNet(forwards=forwards):
            rules = [("hostfwd", f"{f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}") for f in forwards]
            yield from ("-netdev", options("user", [("id", NETDEV), *rules]))
        case TapNet(interface=interface, vhost=vhost, queues=count):
            # QEMU would run these scripts as root, with control of the host's network.
            settings = {"id": NETDEV, "ifname": interface, "script": "no", "downscript": "no"}
            settings |= {"vhost": "on"} if vhost else {}
            yield from ("-netdev", options("tap", settings | ({"queues": str(count)} if count and count > 1 else {})))
        case BridgeNet(bridge=bridge):
            yield from ("-netdev", options("bridge", {"id": NETDEV, "br": bridge}))
        case _ as never:
            assert_never(never)


def queues(net: Net) -> dict[str, str]:
    """Return the card's properties for several queues: two interrupts for each queue and two more."""
    if not isinstance(net, TapNet) or not net.queues or net.queues == 1:
        return {}
    return {"mq": "on", "vectors": str(2 * net.queues + 2)}
