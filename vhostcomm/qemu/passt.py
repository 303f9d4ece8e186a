"""Start passt, a program that connects a guest to this host's network without privileges."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import frozen

from vhostcomm.errors import QemuError
from vhostcomm.linux.children import program, program_ended
from vhostcomm.linux.system_errors import explain
from vhostcomm.qemu.machine import Machine, PasstNet
from vhostcomm.qemu.net_argv import passt, passt_socket, stream
from vhostcomm.text import printable

_TIMEOUT: Final = 30.0
"""Seconds until passt has set itself up, which takes a fraction of one."""

_NOISE: Final = "Failed to send "
"""passt also writes to the system log, and complains on standard error if there is none."""


@frozen
class Connection:
    """QEMU's end of its connection to passt.

    Args:
        replaced: the argument in QEMU's command for a passt that listens.
        argument: its replacement, with the descriptor.
        descriptor: to inherit.
    """

    replaced: str
    argument: str
    descriptor: int


@asynccontextmanager
async def connected(machine: Machine) -> AsyncIterator[Connection | None]:
    """Start passt if the machine needs it. It runs in the background until QEMU ends, or the block.

    Raises:
        QemuError: passt is not installed, or can't set itself up.
    """
    if not isinstance(machine.net, PasstNet):
        yield None
        return
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await _start([*passt(machine.net), "--fd", str(theirs.fileno())], theirs.fileno())
        argument = stream({"type": "fd", "str": str(ours.fileno())})
        yield Connection(stream({"type": "unix", "path": passt_socket(machine.name)}), argument, ours.fileno())


async def _start(argv: list[str], descriptor: int) -> None:
    """Run it until it continues in the background."""
    try:
        with trio.fail_after(_TIMEOUT):
            async with program(
                argv, outlived=True, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process:  # fmt: skip
                assert process.stdout
                async with process.stdout:
                    output = b"".join([part async for part in process.stdout])
                await program_ended(process)
    except FileNotFoundError:
        raise QemuError("--net passt: passt is not installed; install the package passt, or use --net user") from None
    except OSError as error:
        raise QemuError(f"passt can't be started: {explain(error)}") from None
    except trio.TooSlowError:
        raise QemuError(f"passt was not ready after {_TIMEOUT:g} s; use --net user") from None
    if process.returncode:
        lines = [line for line in os.fsdecode(output).splitlines() if line and not line.startswith(_NOISE)]
        why = printable(lines[-1]) if lines else f"exit status {process.returncode}"
        raise QemuError(f"passt can't connect the guest: {why}; use --net user")
