"""The network card's other end in QEMU's spelling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from vhostcomm.qemu.machine import BridgeNet, Net, TapNet, UserNet
from vhostcomm.qemu.words import options

NETDEV: Final = "hostnet0"
"""Its id."""


def netdev(net: Net) -> Iterator[str]:
    """The arguments of what the card is connected to."""
    match net:
        case UserNet(forwards=forwards):
            rules = [("hostfwd", f"{f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}") for f in forwards]
            yield from ("-netdev", options("user", [("id", NETDEV), *rules]))
        case TapNet(interface=interface, vhost=vhost, queues=count):
            # The scripts would be started as root, with the host's network in their hands.
            settings = {"id": NETDEV, "ifname": interface, "script": "no", "downscript": "no"}
            settings |= {"vhost": "on"} if vhost else {}
            yield from ("-netdev", options("tap", settings | ({"queues": str(count)} if count and count > 1 else {})))
        case BridgeNet(bridge=bridge):
            yield from ("-netdev", options("bridge", {"id": NETDEV, "br": bridge}))
        case _ as never:
            assert_never(never)


def queues(net: Net) -> dict[str, str]:
    """The card's properties for several queues: one interrupt for each direction of each, one for control, one for changes."""
    if not isinstance(net, TapNet) or not net.queues or net.queues == 1:
        return {}
    return {"mq": "on", "vectors": str(2 * net.queues + 2)}
