"""A file system that hangs: every process that accesses it waits until it is unmounted."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from tests.serving import TIMEOUT

_REQUEST: Final = struct.Struct("IIQQIIII")
"""fuse_in_header of <linux/fuse.h>: length, opcode, unique, node, uid, gid, pid, and a length again."""

_INIT: Final = 26
_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


class Hanging:
    """A FUSE file system that never answers, mounted on a folder during the context. The folder's content does not change.

    Skips the test where it can't be mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._place = os.fsencode(folder)

    def __enter__(self) -> Self:
        try:
            self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            pytest.skip(f"no file system can be made to hang here: /dev/fuse: {error.strerror}")
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hanging", self._place, b"fuse", 0, options):
            os.close(self._fuse)
            pytest.skip(f"no file system can be made to hang here: mount: {os.strerror(ctypes.get_errno())}")
        self.asked()
        _, opcode, unique, *_ = _REQUEST.unpack_from(os.read(self._fuse, 1 << 17))
        assert opcode == _INIT
        init = struct.pack("IIIIHHIIHH", 7, 31, 0, 0, 0, 0, 4096, 0, 0, 0) + bytes(24)
        os.write(self._fuse, struct.pack("IiQ", 16 + len(init), 0, unique) + init)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _libc.umount2(self._place, _DETACH)
        os.close(self._fuse)  # makes the hanging calls fail

    def asked(self) -> None:
        """Wait until a caller hangs. Its request stays unread, because a read one would keep a killed process from ending."""
        ready, _, _ = select.select([self._fuse], [], [], TIMEOUT)
        assert ready, "no process accessed the hanging file system"
