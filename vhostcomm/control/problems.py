"""Errors of requests, all in one format: what, why and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define

from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.errors import MachineError
from vhostcomm.text import escape

SHOWN: Final = 400
"""Maximum characters of a client's or a guest's text in an error."""


@define(eq=False)
class Problem(Exception):  # noqa: N818 - named as in the API
    """A request that can't be answered as requested. `status` is HTTP's, `reasons` are several that `why` counts."""

    status: int
    what: str
    why: str
    remedy: str
    headers: dict[str, str] | None = None
    reasons: Sequence[str] = ()

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        reasons = {"reasons": [escape(each, SHOWN) for each in self.reasons]} if self.reasons else {}
        return {
            "error": {
                "what": escape(self.what, SHOWN),
                "why": escape(self.why, SHOWN),
                "remedy": escape(self.remedy, SHOWN),
                **reasons,
            }
        }


def bad_request(why: str, remedy: str, status: int = 422) -> Problem:
    """Make the problem for a client's mistake."""
    return Problem(status, "bad request", why, remedy)


def internal_error() -> Problem:
    """Make the problem for a bug, which the log describes."""
    return Problem(500, "internal error", "an error of vhostcomm's own", "see its log, and please report it")


def of_machine(error: MachineError, guest: str) -> Problem:
    """Make the problem for a guest's machine that can't do what is asked."""
    return Problem(409, error.what, f"{guest}: {error.why}", error.remedy.replace("{guest}", guest))


_OF_OUTCOME: Final = {
    Outcome.NOT_CONNECTED: (
        409, "not connected",
        "check whether the guest's QEMU runs, with a chardev for this socket; nothing was sent or kept for later",
    ),
    Outcome.NOT_READY: (
        409, "not ready",
        "wait until it has booted; at most a harmless question was sent. If it never asks, look at its virtio-serial port",
    ),
    Outcome.PAUSED: (409, "paused", "nothing was sent or kept for later"),
    Outcome.STOPPING: (503, "stopping", "ask again when the daemon has restarted"),
    Outcome.BUSY: (429, "busy", "wait until the guest has answered, or the calls before have timed out"),
    Outcome.TIMED_OUT: (
        504, "timed out",
        "the guest may still execute it, or not know the command; look at its console, or give it more time",
    ),
    Outcome.LOST: (
        502, "connection lost",
        "the guest may have executed it; look at its state",
    ),
}  # fmt: skip


def of_call(error: CallError) -> Problem:
    """Make the problem for a call without an answer."""
    status, what, remedy = _OF_OUTCOME[error.outcome]
    return Problem(status, what, str(error), remedy)
