"""Adapt a disk's options to this host: O_DIRECT, native AIO, io_uring, or their best replacements."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Final

import attrs

from vhostcomm.qemu.disk.options import Aio, DiskOptions

_BLOCK: Final = 4096
_EVENTS: Final = 1024
"""Events that QEMU requests from the kernel for each disk with its own I/O thread."""

_IO_SETUP: Final = {"x86_64": 206, "aarch64": 0}
_IO_DESTROY: Final = {"x86_64": 207, "aarch64": 1}
_IO_URING_SETUP: Final = 425  # on every architecture
_IO_URING_PARAMS: Final = 120  # bytes


def fitted(path: str, options: DiskOptions, *, io_uring: bool) -> tuple[DiskOptions, tuple[str, ...]]:
    """Return options that work for an image on this host, and a sentence for each change.

    `io_uring` is whether QEMU is built with it.
    """
    said = []
    if options.cache.is_direct and (why := direct_problem(path)):
        options = options.without_direct()
        said.append(f"no O_DIRECT ({why}): cache={options.cache.value}, aio={options.effective_aio.value}")
    if options.effective_aio is Aio.IO_URING and (
        why := io_uring_problem() if io_uring else "QEMU is built without it"
    ):
        options = attrs.evolve(options, aio=None)
        said.append(f"no io_uring ({why}): aio={options.effective_aio.value}")
    if options.effective_aio is Aio.NATIVE and (why := native_problem()):
        options = attrs.evolve(options, aio=Aio.THREADS)
        said.append(f"no native AIO ({why}): aio=threads")
    return options, tuple(said)


def direct_problem(path: str) -> str:
    """Return why an image can't be read with O_DIRECT; empty if it can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, _BLOCK) as aligned:
                os.preadv(descriptor, [aligned], 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Other errors aren't about O_DIRECT, and QEMU explains them better.
        return "its file system refuses it" if error.errno == errno.EINVAL else ""
    return ""


def native_problem() -> str:
    """Return why another context of native AIO is unavailable; empty if it is available."""
    machine = os.uname().machine
    if machine not in _IO_SETUP:
        return ""
    context = ctypes.c_ulong(0)
    code = _call(_IO_SETUP[machine], _EVENTS, ctypes.byref(context))
    if code == errno.EAGAIN:
        return "as many are in use as sysctl fs.aio-max-nr allows"
    if code:
        return os.strerror(code)
    _call(_IO_DESTROY[machine], context)
    return ""


def io_uring_problem() -> str:
    """Return why io_uring is unavailable; empty if it is available."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(_IO_URING_PARAMS))
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return ""


def _call(number: int, *arguments: object) -> int:
    """Make a system call. Return its errno, 0 for none."""
    library = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if library.syscall(number, *arguments) < 0 else 0
