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

from collections.abc import Callable, Sequence
from typing import Final

REASONS_SHOWN: Final = 20
"""Maximum reasons in one line: 10,000 guests may all have the same."""


class VhostcommError(Exception):
    """An error whose message is for the user; `exit_code` is the exit status of the process.

    Args:
        reasons: one or several.
        more: the number of further reasons, which are not known any longer.
    """

    exit_code = 1
    several = "errors"
    """What several reasons are called."""

    def __init__(self, *reasons: str, more: int = 0) -> None:
        self.reasons = reasons
        self.more = more
        super().__init__(*reasons)

    def __str__(self) -> str:
        return self.in_one_line()

    @property
    def summary(self) -> str:
        """The reason, or the number of several."""
        return f"{len(self.reasons) + self.more} {self.several}" if self.details else "".join(self.reasons)

    @property
    def details(self) -> Sequence[str]:
        """Several reasons; none if `summary` is the only one."""
        if self.more:
            return *self.reasons, f"and {self.more} more"
        return self.reasons if len(self.reasons) > 1 else ()

    @property
    def in_lines(self) -> str:
        """The message for a terminal: the reason, or each of several on a line of its own."""
        return "\n  ".join((f"{self.summary}:", *self.details)) if self.details else self.summary

    def in_one_line(self, shown: Callable[[str], str] = str) -> str:
        """Format the first reasons for a log message, or any other place with only one line; `shown` escapes each."""
        if not self.details:
            return shown(self.summary)
        first = self.reasons[:REASONS_SHOWN]
        left = len(self.reasons) + self.more - len(first)
        return f"{self.summary}: {' | '.join(map(shown, first))}" + (f" | and {left} more" if left else "")


class UsageError(VhostcommError):
    """A mistake in the command line."""

    exit_code = 2


class ConfigError(VhostcommError):
    """Mistakes in the configuration: in the file, the environment or a flag."""

    exit_code = 2
    several = "mistakes in the configuration"


class ServeError(VhostcommError):
    """A guest's socket that can't be bound, connected to or watched; each reason is of one guest or several."""

    several = "reasons why guests can't be served"


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
