"""The model of a guest: its states, and every transition.

    ABSENT ── Connected ─▶ CONNECTED ── Frame, Answer ─▶ READY ── Silence ─▶ SILENT
       ◀── Disconnected ──     ◀────── Reset ──────        ◀─ Frame, Answer ─

Independently, the machine runs or is paused, as far as QMP reports it. If QEMU is connected and the machine is paused,
the guest's state is shown as PAUSED.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import define, evolve, field, frozen

from vhostcomm.guest.debt import Debt
from vhostcomm.guest.evidence import (
    Answer,
    Booted,
    Connected,
    Disconnected,
    Evidence,
    Frame,
    FreezeSent,
    Moment,
    OfConnection,
    Paused,
    ProbeSent,
    Reset,
    Resumed,
    Silence,
    Stop,
    StopAsked,
    ThawAnswered,
)

HEARD_RECENTLY: Final = 5.0
"""Seconds for which a sign of life is recent. A harmful command needs a recent one, because QEMU keeps what it can't
deliver for the next opener of the port, even after a reboot."""

PROBE_TIMEOUT: Final = 2.0
"""Seconds for a guest to answer the harmless question; a genuine guest needs much less than one."""

PROBE_INTERVAL: Final = 1.0
PROBE_INTERVAL_MAX: Final = 60.0
"""Seconds between an unanswered question and the next: doubled up to this, because unread questions pile up in QEMU."""


class State(Enum):
    """The state of a guest."""

    ABSENT = "absent"
    """QEMU is not connected to the guest's channel."""
    CONNECTED = "connected"
    """QEMU is connected, but the guest gave no sign of life since then, or since a reset of its machine."""
    READY = "ready"
    """The guest sent a question, a notification or an answer."""
    SILENT = "silent"
    """The guest was ready, but did not answer the last question."""
    PAUSED = "paused"
    """QEMU is connected, but its machine is paused: the guest does nothing until it is resumed."""


@frozen
class Pause:
    """The pause of a machine: its cause, the remedy, and its beginning."""

    cause: str
    remedy: str
    since: Moment


_A, _C, _R, _S = State.ABSENT, State.CONNECTED, State.READY, State.SILENT

TRANSITIONS: Final[dict[State, dict[type, State]]] = {
    _A: {Connected: _C},
    _C: {Connected: _C, Disconnected: _A, Reset: _C, Frame: _R, Booted: _R, Answer: _R},
    _R: {Connected: _C, Disconnected: _A, Reset: _C, Silence: _S},
    _S: {Connected: _C, Disconnected: _A, Reset: _C, Frame: _R, Booted: _R, Answer: _R},
}
"""All transitions of the channel; other evidence changes no state. A transition to the same state begins it again."""

_SIGNS_OF_LIFE: Final = (Frame, Booted, Answer)


@define
class Model:
    """The knowledge about a guest: its state, since when, and by which evidence. Only `take` changes it."""

    channel: State = State.ABSENT
    """ABSENT, CONNECTED, READY or SILENT, whether or not the machine is paused."""
    entered: Moment = field(factory=lambda: Moment(0.0, 0.0))
    """When `channel` or `pause` last changed."""
    evidence: Evidence | None = None
    """The evidence for that change."""
    pause: Pause | None = None
    """The pause of the machine, if it is paused."""
    connection: int = 0
    heard: float | None = None
    """The last sign of life since the connection, a reset or a resume, on the monotonic clock."""
    probes: int = 0
    """Harmless questions sent since the last sign of life."""
    probed: float = 0.0
    """When the last of them was sent."""
    probe_again: float = 0.0
    """The next one is not due before this time."""
    has_asked: bool = False
    """Whether the guest asked a question since it started. If so, a boot notification means another start."""
    stop: Stop | None = None
    """The last stop that was requested in this connection and boot."""
    freezes: int = 0
    """Freezes sent so far."""
    debt: Debt | None = None

    @property
    def state(self) -> State:
        if self.pause is not None and self.channel is not State.ABSENT:
            return State.PAUSED
        return self.channel

    def take(self, evidence: Evidence, now: float, wall: float = 0.0) -> None:
        """Update the model.

        `now` is in seconds of the monotonic clock. `wall` is in seconds since 1970, and only shown.
        """
        kind = type(evidence)
        if type(evidence) is Frame and self.channel is _R and evidence.connection == self.connection:
            # The hot path: every frame.
            self.heard = now
            if evidence.asks:
                self.has_asked = True
            return
        if isinstance(evidence, OfConnection) and evidence.connection != self.connection:
            return
        if isinstance(evidence, Silence) and self._heard_since_probe():
            return
        when = Moment(now, wall)
        before = self.channel, self.pause
        is_new = kind in {Connected, Reset} or (kind is Booted and self.has_asked)
        self._note(evidence, when)
        self.channel = TRANSITIONS[self.channel].get(kind, self.channel)
        if isinstance(evidence, _SIGNS_OF_LIFE) and self.channel is State.READY:
            self.heard, self.probes, self.probe_again = now, 0, 0.0
        if (self.channel, self.pause) != before or is_new:
            self.entered, self.evidence = when, evidence

    def adopt(self, debt: Debt) -> None:
        """Take over the debt of an earlier daemon."""
        self.debt = debt

    def _note(self, evidence: Evidence, when: Moment) -> None:
        match evidence:
            case Connected(connection):
                self.connection = connection
                self._forget_boot()
                self._demand(when, "its connection ended")
            case Reset():
                if self.channel is not State.ABSENT:
                    self._forget_boot()
                    self._demand(when, "its machine was reset")
            case Disconnected():  # QEMU may have ended
                self.heard = self.pause = None
            case Resumed():
                self.heard = self.pause = None
                self.probes, self.probe_again = 0, 0.0
            case Frame(_, asks):
                self.has_asked = self.has_asked or asks
            case Booted():
                if self.has_asked:
                    self.stop = None
                    self._demand(when, "it started again")
                self.has_asked = False
            case ProbeSent():
                self.probes = 1 if self._heard_since_probe() else self.probes + 1
                self.probed = when.at
                pause = min(PROBE_INTERVAL_MAX, PROBE_INTERVAL * 2.0 ** min(self.probes - 1, 16))
                self.probe_again = when.at + PROBE_TIMEOUT + pause
            case Paused(cause, remedy):
                self.pause = Pause(cause, remedy, self.pause.since if self.pause else when)
            case StopAsked(by, how):
                self.stop = Stop(by, how, when)
            case FreezeSent(by, until):
                self.freezes += 1
                since = self.debt.since if self.debt else when
                self.debt = Debt(self.freezes, by, since, until)
            case ThawAnswered(covers):
                if self.debt and self.debt.number <= covers:
                    self.debt = None
            case _:
                pass

    def _heard_since_probe(self) -> bool:
        return self.heard is not None and self.heard >= self.probed

    def _demand(self, when: Moment, why: str) -> None:
        """Make the thaw due now: a guest that returns is thawed at once."""
        if self.debt and self.debt.until.at > when.at:
            self.debt = evolve(self.debt, until=when, why=why)

    def _forget_boot(self) -> None:
        self.heard, self.stop, self.has_asked = None, None, False
        self.probes, self.probe_again = 0, 0.0
