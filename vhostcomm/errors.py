"""The errors that vhostcomm shows to its user: what is wrong, where, and what to do.

VhostcommError       exit status 1
├── UsageError       the command line; exit status 2
├── ConfigError      the configuration: file, environment or flags; exit status 2
├── ServeError       a socket that can't be served
│   └── PlaceError   a directory or group that is missing or inaccessible; exit status 78
├── CallError        a request to a guest without an answer (vhostcomm.channel.calls)
├── ControlError     a daemon that can't be reached or rejects a request (vhostcomm.control.client)
├── CaptureError     an invalid capture file, with the line
├── EtcdError        an etcd that can't be reached or rejects a request (vhostcomm.cluster.wire)
├── HeldError        a guest that is not started, because another host runs it (vhostcomm.cluster.lock)
├── TreeFileError        a cluster's tree that can't be read from its file or written to it (vhostcomm.cluster.tree_file)
├── DiskError        a disk image that can't be read or created, with its path
├── InstallError     a .pat that can't be installed, or an unsuitable directory
├── MachineError     a running machine that can't do what is asked through QMP
└── QemuError        a QEMU that can't run, or lacks a feature
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class VhostcommError(Exception):
    """An error whose message is for the user; `exit_code` is the exit status of the process."""

    exit_code = 1

    @property
    def in_lines(self) -> str:
        """The message for a terminal, of one line or several."""
        return str(self)


class UsageError(VhostcommError):
    """A mistake in the command line."""

    exit_code = 2


class ConfigError(VhostcommError):
    """A mistake in the configuration: in the file, the environment or a flag. Or several mistakes, as `mistakes`."""

    exit_code = 2

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        super().__init__(in_one_line(mistakes))

    @property
    def in_lines(self) -> str:
        """The mistake, or each mistake on a line of its own."""
        if len(self.mistakes) == 1:
            return str(self)
        return "\n  ".join((f"{len(self.mistakes)} mistakes in the configuration:", *self.mistakes))


def in_one_line(mistakes: Sequence[str]) -> str:
    """Format the mistakes of a configuration for a log message, or for any other place with only one line."""
    if len(mistakes) == 1:
        return mistakes[0]
    more = f" | and {len(mistakes) - MISTAKES_SHOWN} more" if len(mistakes) > MISTAKES_SHOWN else ""
    return f"{len(mistakes)} mistakes: {' | '.join(mistakes[:MISTAKES_SHOWN])}{more}"


MISTAKES_SHOWN: Final = 20
"""Maximum mistakes in one line: 10,000 guests may all have the same."""


class ServeError(VhostcommError):
    """A guest's socket that can't be bound, connected to or watched."""


class PlaceError(ServeError):
    """A missing or inaccessible directory (of a socket or a recording, or a watched one) or group; retrying is useless.

    The exit status is that of a wrong configuration in sysexits.h, which `systemctl status` shows.
    """

    exit_code = 78


class CaptureError(VhostcommError):
    """An invalid capture; `path` and `line` are the place."""

    def __init__(self, path: str, line: int, what: str) -> None:
        self.path = path
        self.line = line
        self.what = what
        super().__init__(f"{path}:{line}: {what}")


class DiskError(VhostcommError):
    """A disk image that can't be read, trusted or created; `path` is the image."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.what = what
        super().__init__(f"{path}: {what}")


class InstallError(VhostcommError):
    """A `.pat` that can't be installed, or a directory that it can't be installed into."""


class MachineError(VhostcommError):
    """A running machine that can't do what is asked through QMP, such as resume.

    Args:
        what: in at most three words.
        why: the cause.
        remedy: what to do, with {guest} for the guest's name.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        super().__init__(f"{why}; {remedy}")


class QemuError(VhostcommError):
    """A QEMU that can't run, or lacks a feature."""
