"""Replace files of our own user: records of freezes, the secret of the web page, the last tree of a cluster, a guest's settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def replace_private(
    path: Path, parts: Iterable[bytes], *, mode: int = 0o600, durable: bool = False, shared: bool = False
) -> None:
    """Replace a file at once. A reader finds the old content or the new one. It may block.

    Args:
        path: of the file.
        parts: its new content.
        mode: of the new file.
        durable: wait until the content is on the disk, so that it also survives a power failure.
        shared: other processes may write the same file. If a process is killed while it writes, its temporary file
            stays. The next call removes the temporary file of a file that isn't shared.

    Raises:
        OSError: it can't be written.
    """
    made = path.with_name(f"{path.name}.{os.getpid()}.new" if shared else f"{path.name}.new")
    made.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(made, flags, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
            file.writelines(parts)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
