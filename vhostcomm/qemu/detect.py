"""Detect the capabilities of a QEMU by querying it. Its version number is only for people."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Final

import attrs
import trio

from vhostcomm.errors import QemuError
from vhostcomm.qemu import kvm
from vhostcomm.qemu.capabilities import DEVICES, UNTRIED, Capabilities, Program, Reconnect
from vhostcomm.qemu.child import Child, spawn
from vhostcomm.qemu.qmp import Qmp, QmpCommandError, QmpError

PROBE_TIMEOUT: Final = 10.0
"""Seconds for all queries. They take 0.03 on an idle machine, longer with a cold disk or many guests."""


async def find_capabilities(program: Program, *, try_kvm: bool = True) -> Capabilities:
    """Start a QEMU without a machine and query it. If it may have KVM, start it again to try that.

    Takes about 60 ms, and 2 s more if KVM only seems to work. Without `try_kvm`, there is no second start, and
    `Capabilities.kvm_problem` says so.

    Raises:
        QemuError: there is no such program, or it does not behave like a QEMU.
    """
    command = [_found(program.path), *program.command[1:]]
    ours, theirs = socket.socketpair()
    arguments = [
        "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-S",
        "-chardev", f"socket,id=vhostcomm-qmp,fd={theirs.fileno()}", "-qmp", "chardev:vhostcomm-qmp",
    ]  # fmt: skip
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        with theirs:
            async with spawn([*command, *arguments], pass_fds=[theirs.fileno()]) as child:
                theirs.close()
                can = await _ask(program, child, Qmp(stream, greeting_timeout=PROBE_TIMEOUT))
    finally:
        await trio.aclose_forcefully(stream)
    if not can.kvm_problem:
        can = attrs.evolve(can, kvm_problem=await kvm.trial(command, "kvm") if try_kvm else UNTRIED)
    return can


async def _ask(program: Program, child: Child, qmp: Qmp) -> Capabilities:
    can: Capabilities | None = None
    problem = f"no answers within {PROBE_TIMEOUT:g} s"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.read_output, lambda _: None)
        with trio.move_on_after(PROBE_TIMEOUT):
            try:
                await nursery.start(qmp.run)
                can = await _question(program, qmp)
                await qmp.execute("quit")
            except QmpError as error:
                problem = str(error)
        await child.last_words()
        nursery.cancel_scope.cancel()
    if can is None:
        ended = "it still ran" if child.code is None else f"it ended with {child.code}"
        said = "".join(f"\n    {line}" for line in child.tail) or " nothing"
        raise QemuError(
            f"{program.path} doesn't answer as QEMU 7.2 or later does: {problem}; {ended}; its output:{said}"
        )
    return can


async def _question(program: Program, qmp: Qmp) -> Capabilities:
    """Query everything but whether KVM works. `kvm_problem` is what prevents KVM, as far as that is known."""
    options = {
        option["option"]: frozenset(parameter["name"] for parameter in option["parameters"])
        for option in await qmp.execute("query-command-line-options")
    }
    machines = await qmp.execute("query-machines")
    chardev = options.get("chardev", frozenset())
    return Capabilities(
        program=program,
        version=qmp.version,
        reconnects=next((each for each in (Reconnect.MILLISECONDS, Reconnect.SECONDS) if each.value in chardev), None),
        memory_lock="mem-lock" in options.get("overcommit", frozenset()),
        sandbox="sandbox" in options,
        machines=frozenset(name for machine in machines for name in (machine["name"], machine.get("alias")) if name),
        devices=frozenset([device for device in DEVICES if await _has(qmp, device)]),
        io_uring=await _io_uring(qmp),
        kvm_problem=_kvm_hindrance(built_in=(await qmp.execute("query-kvm"))["present"]),
    )  # fmt: skip


async def _io_uring(qmp: Qmp) -> bool:
    """Whether it knows the word. The file can't be a disk, so nothing is opened."""
    try:
        await qmp.execute("blockdev-add", driver="file", **{"node-name": "probe", "filename": "/", "aio": "io_uring"})
    except QmpCommandError as error:
        return "io_uring" not in str(error)
    return True


async def _has(qmp: Qmp, device: str) -> bool:
    try:
        await qmp.execute("device-list-properties", typename=device)
    except QmpCommandError:  # no such device
        return False
    return True


def _kvm_hindrance(*, built_in: bool) -> str:
    """Return what prevents KVM, as far as it is known without a trial."""
    if not built_in:
        return "this QEMU is built without KVM"
    if not Path("/dev/kvm").exists():
        return "no /dev/kvm: no virtualisation in this machine, its firmware or its hypervisor, or no module"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm: no permission; add the user to the group kvm"
    return ""


def _found(path: str) -> str:
    found = shutil.which(path)
    if found:
        return found
    if Path(path).is_dir():
        raise QemuError(f"{path}: a directory, not a program; name QEMU's executable")
    if Path(path).exists():
        raise QemuError(f"{path}: not executable; chmod +x it, or name another QEMU")
    raise QemuError(
        f"{path}: no such program; install QEMU (Debian and Ubuntu: apt install qemu-system-x86), or name one"
    )
