"""The balloon: memory that a guest gives back to its host while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from attrs import frozen

from vhostcomm.errors import MachineError
from vhostcomm.qemu.qmp import QmpCommandError

SIZE_MIN: Final = 128 << 20
"""Bytes that a guest keeps. Linux kills its programs when the balloon takes more than they can spare."""


@frozen
class Balloon:
    """A guest's memory, in bytes: what it has now, and what its machine was started with."""

    actual: int
    memory: int


async def balloon(execute: Callable[..., Awaitable[Any]], size: int | None) -> Balloon:
    """Ask a guest to change its memory to `size` bytes, which it does at its own pace. Return what it has right after.

    A size of None only reads the memory. `execute` executes a QMP command by name, and raises `QmpError`.

    Raises:
        MachineError: the size can't be, or the guest has no driver for its balloon.
        QmpError: QEMU does not answer.
    """
    memory = int((await execute("query-memory-size-summary"))["base-memory"])
    if size is not None and not min(SIZE_MIN, memory) <= size <= memory:
        raise MachineError(
            "no such size",
            f"{size} bytes; the guest has {memory >> 20} MiB, and keeps {min(SIZE_MIN, memory) >> 20} MiB at least",
            "choose a size between them",
        )
    try:
        if size is not None:
            await execute("balloon", value=size)
        actual = int((await execute("query-balloon"))["actual"])
    except QmpCommandError as error:
        raise MachineError("no balloon", str(error), "check whether the machine has a virtio balloon device") from None
    return Balloon(actual, memory)
