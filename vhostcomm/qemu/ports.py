"""Check before QEMU or passt starts whether it can bind the host ports that it has to forward."""

from __future__ import annotations

import errno
import socket

from vhostcomm.qemu.machine import Forward, Net, PasstNet, UserNet


def port_problem(net: Net | None) -> str:
    """Return why QEMU or passt can't bind a port to forward, and what to do; "" if it can bind all.

    Each port is bound as QEMU binds it, so recently closed connections don't matter, and released again.
    """
    if not isinstance(net, UserNet | PasstNet):
        return ""
    for forward in net.forwards:
        kind = socket.SOCK_DGRAM if forward.protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as trial:
            if forward.protocol == "tcp":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((forward.host_address, forward.host_port))
                if forward.protocol == "tcp":
                    trial.listen()
            except OSError as error:
                return _problem(forward, error)
    return ""


def _problem(forward: Forward, error: OSError) -> str:
    port = forward.host_port
    where = f"--forward: {forward.protocol} port {port} of {forward.host_address}"
    match error.errno:
        case errno.EADDRINUSE:
            listing = "-lunp" if forward.protocol == "udp" else "-ltnp"
            return f"{where} is in use; `ss {listing} 'sport = :{port}'` shows by what; or forward another port"
        case errno.EACCES:
            return (
                f"{where} needs root; forward a port from 1024 on, "
                f"or allow it: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            )
        case errno.EADDRNOTAVAIL:
            return f"{where}: this machine has no such address; `ip address` lists them"
        case _:
            return f"{where} can't be bound: {error.strerror}"
