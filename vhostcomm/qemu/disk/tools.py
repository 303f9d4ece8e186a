"""Run sfdisk, qemu-img and the programs of e2fsprogs on images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Final

from vhostcomm.errors import DiskError
from vhostcomm.linux.environment import child_environment
from vhostcomm.linux.signals import deferred_end
from vhostcomm.linux.system_errors import explain

_PACKAGES: Final = {
    "sfdisk": "fdisk (Debian, Ubuntu) or util-linux (elsewhere)",
    "qemu-img": "qemu-utils (Debian, Ubuntu) or qemu-img (elsewhere)",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}

_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""sfdisk is in one of these, and Debian omits them from a user's PATH."""

_DEADLINE: Final = 60.0
"""Seconds. sfdisk and qemu-img need milliseconds, but a qcow2 can have a backing file on a dead server."""


def find(tool: str, *, path: str) -> str:
    """Find the program of a tool.

    Raises:
        DiskError: the tool isn't installed; names its package.
    """
    program = shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if program is None:
        raise DiskError(path, f"needs {tool}, which is not installed; install the package {_PACKAGES[tool]}")
    return program


def run(
    tool: str,
    *arguments: str,
    path: str,
    stdin: str = "",
    pass_fds: Iterable[int] = (),
    folder: str | None = None,
    seconds: float | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run a tool with an English locale, and wait for it.

    Args:
        path: the image, for errors.
        folder: the working directory; None for the current one.
        seconds: the time limit; None for one minute.
        variables: of the environment.

    Raises:
        DiskError: the tool isn't installed, or exceeds its time limit. The caller checks the exit status.
    """
    program = find(tool, path=path)
    limit = _DEADLINE if seconds is None else seconds
    try:
        with ExitStack() as stack:
            with deferred_end():
                process = stack.enter_context(
                    subprocess.Popen(  # noqa: S603  # no shell; every path is absolute or a descriptor
                        [program, *arguments],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        encoding="utf-8",
                        errors="backslashreplace",
                        env=child_environment(LC_ALL="C", **variables),
                        cwd=folder,
                        pass_fds=tuple(pass_fds),
                    )
                )
                stack.callback(process.kill)  # does nothing if it has ended
            stdout, stderr = process.communicate(stdin, limit)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    except subprocess.TimeoutExpired:
        raise DiskError(path, f"{tool} took more than {limit:.0f} seconds and was killed") from None
    except OSError as error:
        raise DiskError(path, f"{program} can't be run: {explain(error)}") from None


def checked(tool: str, *arguments: str, path: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a tool like `run`; if it fails, raise DiskError with its error output."""
    done = run(tool, *arguments, path=path, **more)
    if done.returncode != 0:
        raise failed(tool, path, done)
    return done


def failed(tool: str, path: str, done: subprocess.CompletedProcess[str]) -> DiskError:
    """Return the error for a tool that failed."""
    said = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
    return DiskError(path, f"{tool} failed with status {done.returncode}: {said or 'no error output'}")
