"""What vhostcomm tells its user: what is wrong, where, and what to do about it.

VhostcommError       exit status 1
├── UsageError       the command line; exit status 2
├── ConfigError      the configuration, wherever it stands; exit status 2
├── ServeError       a socket that can't be served
│   └── PlaceError   its place: a folder or a group that isn't there, or isn't ours to use; exit status 78
├── CallError        a question to a guest that got no answer (vhostcomm.channel.calls)
├── ControlError     a running daemon that can't be reached, or doesn't do what is asked (vhostcomm.control.client)
├── CaptureError     a capture file that can't be read, with its line
├── DiskError        a disk image that can't be read or made, with its path
├── InstallError     a .pat that can't be installed, or not there
├── ResumeError      a paused machine that can't be resumed
└── QemuError        a QEMU that can't be run, or can't do what is asked of it
"""

from __future__ import annotations


class VhostcommError(Exception):
    """An error with a message made for the user; `exit_code` is the process's."""

    exit_code = 1


class UsageError(VhostcommError):
    """A mistake in the command line."""

    exit_code = 2


class ConfigError(VhostcommError):
    """A mistake in the configuration: of the file, the environment or a flag."""

    exit_code = 2


class ServeError(VhostcommError):
    """A guest's socket that can't be bound, connected to or watched."""


class PlaceError(ServeError):
    """A folder of a socket or a recording, a watched one, or a group that isn't there, or isn't ours to use: trying again is in vain.

    Its status is that of a wrong configuration in sysexits.h, as `systemctl status` shows it.
    """

    exit_code = 78


class CaptureError(VhostcommError):
    """A capture that is not one. `path` and `line` say where."""

    def __init__(self, path: str, line: int, what: str) -> None:
        self.path = path
        self.line = line
        self.what = what
        super().__init__(f"{path}:{line}: {what}")


class DiskError(VhostcommError):
    """A disk image that can't be read, believed or made. `path` says which."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self.what = what
        super().__init__(f"{path}: {what}")


class InstallError(VhostcommError):
    """A `.pat` that can't be installed, or a folder that it can't be installed into."""


class ResumeError(VhostcommError):
    """A paused machine that can't be resumed, or stopped again at once.

    Args:
        what: in three words.
        why: the cause.
        remedy: what to do, with {guest} for the guest's name.
    """

    def __init__(self, what: str, why: str, remedy: str) -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        super().__init__(f"{why}; {remedy}")


class QemuError(VhostcommError):
    """A QEMU that can't be run, or can't do what is asked of it."""
