"""Unpack an xz-compressed tar archive as a stream, within limits. The archive is untrusted."""

from __future__ import annotations

import lzma
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from vhostcomm.errors import InstallError

XZ_MAGIC: Final = b"\xfd7zXZ\0"
CHUNK: Final = 1 << 20

RATIO_MAX: Final = 100
"""Maximum ratio of unpacked to packed bytes. A system is below 10; xz reaches 7000 with zeros."""

SMALL: Final = 64 << 20
"""Bytes that an archive may always unpack to, whatever the ratio."""

_DECODER_MEMORY: Final = 256 << 20
"""Maximum bytes of xz's dictionary: `xz -9` needs 65 MiB, but a header can ask for 4 GiB."""

_HEADERS_MAX: Final = 1 << 20
"""Maximum bytes of one member's headers, which tarfile keeps in memory. Long names and attributes need a few KiB."""

_FOOTER_SIZE: Final = 12
_INTEGER_BITS: Final = 63
_INDEX_MAX: Final = 16 << 20


def bomb(name: str, unpacked: int, packed: int) -> InstallError:
    """Return the error for an implausible compression ratio."""
    return InstallError(
        f"{name}: {packed} bytes that unpack to {unpacked} or more, unlike a genuine .pat, so it is rejected"
    )


def cut_off(name: str) -> InstallError:
    """Return the error for an incomplete archive."""
    return InstallError(f"{name}: cut off or damaged; download the .pat again and compare its checksum")


@contextmanager
def damage_reported(name: str) -> Iterator[None]:
    """Report what tarfile and lzma raise for a damaged or hostile archive of that name as an `InstallError`."""
    try:
        yield
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError, OverflowError, RecursionError) as error:
        # tarfile recurses for each header that extends the next one.
        raise InstallError(f"{cut_off(name)} ({error})") from None


def unpacked_size(packed: IO[bytes], name: str) -> int:
    """Return the unpacked size of an xz file, from its index and without unpacking it.

    Raises:
        InstallError: the file is no xz file, is cut off, or has an implausible compression ratio.
    """
    size = packed.seek(0, os.SEEK_END)
    packed.seek(0)
    if packed.read(len(XZ_MAGIC)) != XZ_MAGIC:
        raise InstallError(f"{name}: not compressed with xz, as in the releases that can be installed (7.0 and later)")
    packed.seek(max(0, size - _FOOTER_SIZE))
    footer = packed.read(_FOOTER_SIZE)
    index_size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    if footer[10:] != b"YZ" or index_size > min(size, _INDEX_MAX):
        raise cut_off(name)
    packed.seek(size - _FOOTER_SIZE - index_size)
    index = packed.read(index_size)
    try:
        numbers = _numbers(index[1:])
        total = 0
        for _ in range(next(numbers)):
            next(numbers)
            total += next(numbers)
    except StopIteration:
        raise cut_off(name) from None
    if total > max(SMALL, size * RATIO_MAX):
        raise bomb(name, total, size)
    return total


def _numbers(index: bytes) -> Iterator[int]:
    """Yield the variable-length integers of an xz index. Ends at one of more than 63 bits, which the format forbids."""
    value = shift = 0
    for byte in index:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
        elif shift >= _INTEGER_BITS:
            return


class _Unpacked:
    """A file object for tarfile that unpacks an xz file, with a limit on the bytes."""

    def __init__(self, packed: IO[bytes], name: str, most: int) -> None:
        self._packed = packed
        self._name = name
        self._most = most
        self._allowed = _HEADERS_MAX  # tarfile reads the first header when it opens
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECODER_MEMORY)
        self._count = 0

    def allow(self, size: int) -> None:
        """Allow this many more bytes to be read until the next call."""
        self._allowed = self._count + size

    def read(self, size: int) -> bytes:
        while not self._decoder.eof:
            fresh = self._packed.read(CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not fresh:
                raise cut_off(self._name)
            if data := self._decoder.decompress(fresh, size):
                self._count += len(data)
                if self._count > self._most:
                    raise bomb(self._name, self._count, self._packed.tell())
                if self._count > self._allowed:
                    raise InstallError(f"{self._name}: a member with more than {_HEADERS_MAX} bytes of headers")
                return data
        return b""


def unpack(packed: IO[bytes], name: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield the members of an xz-compressed tar archive in order, each with its contents if it is a file.

    Use it inside `damage_reported`. Read the contents of a member before the next one.

    Args:
        packed: the archive; seekable.
        name: of the archive, for errors.

    Raises:
        InstallError: the archive is cut off, or exceeds a limit.
    """
    most = unpacked_size(packed, name)
    packed.seek(0)
    reader = _Unpacked(packed, name, most)
    contents = 0
    with tarfile.open(fileobj=reader, mode="r|") as archive:  # type: ignore[call-overload]
        while member := archive.next():
            archive.members.clear()  # tarfile would keep them all in memory
            contents += member.size  # of a sparse file with its holes, which the archive doesn't contain
            if contents > most:
                raise bomb(name, contents, packed.seek(0, os.SEEK_END))
            reader.allow(member.size + _HEADERS_MAX)
            yield member, archive.extractfile(member) if member.isreg() else None
    reader.allow(most)
    while reader.read(CHUNK):  # to the checksum at the end
        pass
