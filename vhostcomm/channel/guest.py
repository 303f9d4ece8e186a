"""One guest: its answers, and the knowledge about it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import trio
from attrs import define, field

from vchannel import (
    Command,
    Event,
    GuestCommand,
    HostCommand,
    PayloadError,
    PreparedAnswer,
    Request,
    decode_integer,
    decode_text,
)
from vhostcomm.config.address import Address
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.guest import evidence
from vhostcomm.guest.answers import EMPTY, answers, prepare
from vhostcomm.guest.debt import Debt
from vhostcomm.guest.events import Gone, GuestEvent
from vhostcomm.guest.information import Answered, Information
from vhostcomm.guest.model import PROBE_TIMEOUT, Model, State
from vhostcomm.log.logs import LimitedLog, Log

UNKNOWN_KEPT: Final = 64
"""Maximum unknown commands to count and log individually; a guest that tries all must not fill memory or the log."""

OTHER: Final = -1
"""The key under which further ones are counted together."""

SHOWN: Final = 512
"""Bytes of a guest's data to decode for a log message, which shows 200 characters."""


_READY: Final = State.READY  # looked up once, since every frame needs it


class Trace(Protocol):
    """Observes every frame of a guest; must neither wait nor raise."""

    def received(self, event: Event) -> None:
        """Observe an event of the guest."""

    def sent(self, raw: bytes) -> None:
        """Observe a frame sent to the guest."""


@define
class Guest:
    """A guest's identity and the knowledge about it. Its session provides the evidence; others only read.

    Times are seconds since 1970, or None for never.
    """

    name: str
    address: Address
    host: HostIdentity
    identity: GuestIdentity
    log: Log
    model: Model = field(factory=Model)
    boots: int = 0
    reported_time: int | None = None
    connections: int = 0
    counts: Counter[int] = field(factory=Counter)
    """Requests by command."""
    answered: dict[int, Answered] = field(factory=dict)
    refused_frames: int = 0
    skipped_bytes: int = 0
    dropped_answers: int = 0
    listeners: list[Callable[[Guest, GuestEvent], None]] = field(factory=list, repr=False)
    calls: Counter[tuple[str, str]] = field(factory=Counter)
    """Calls to the guest, by command and outcome."""
    information: Information | None = None
    """Its last answer about itself."""
    last_end: Gone | None = None
    """How its last connection ended; None before the first end."""
    unreachable: str = ""
    """If vhostcomm connects: why QEMU's socket can't be reached, and what to do."""
    throttled: int = 0
    traces: list[Trace] = field(factory=list, repr=False)
    """The observers of its frames."""
    news: trio.Event = field(factory=trio.Event, repr=False)
    """Set and replaced at every piece of evidence, except frames of a guest that is ready."""
    lines: LimitedLog = field(init=False, repr=False)
    """Log messages about its frames."""
    connection_log: LimitedLog = field(init=False, repr=False)
    """Log messages about its connections, and about its machine from QMP."""
    answers: dict[Command, bytes] = field(init=False)
    _question: evidence.Frame = field(default=evidence.Frame(0, asks=True), init=False)
    _notice: evidence.Frame = field(default=evidence.Frame(0, asks=False), init=False)
    _logged_answers: dict[int, bytes] = field(factory=dict, init=False)
    _unknown: set[int] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.lines, self.connection_log = LimitedLog(self.log), LimitedLog(self.log)
        self.answers = answers(self.host, self.identity)
        self.model.entered = now()

    def change(self, host: HostIdentity, identity: GuestIdentity) -> None:
        """Answer with another identity from now on."""
        self.host, self.identity = host, identity
        self.answers = answers(host, identity)

    # -- knowledge

    @property
    def state(self) -> State:
        return self.model.state

    @property
    def last_frame(self) -> float | None:
        """The last sign of life since the connection, a reset or a resume: a request or an answer of the guest."""
        heard = self.model.heard
        return None if heard is None else round(time.time() - max(0.0, trio.current_time() - heard), 3)

    @property
    def debt(self) -> Debt | None:
        """The thaw that is owed: a freeze was sent, and no thaw has been answered since."""
        return self.model.debt

    @property
    def frozen_until(self) -> float | None:
        """When that thaw is due."""
        return self.model.debt.until.wall if self.model.debt else None

    # -- evidence

    def take(self, found: evidence.Evidence, first: Command | None = None) -> None:
        """Update the model, and report a change of the channel's state. `first` is the command of a frame."""
        moment, before = now(), self.model.channel
        self.model.take(found, moment.at, moment.wall)
        if self.model.channel is not before:
            if self.model.channel is State.READY:
                self.lines.info("guest ready", first="its answer to a question" if first is None else _name(first))
                self._emit(GuestEvent.READY)
            elif self.model.channel is State.SILENT:
                self.lines.warning("guest silent", why=f"no answer within {PROBE_TIMEOUT:g} s")
                self._emit(GuestEvent.SILENT)
        self.wake()

    def wake(self) -> None:
        """Wake the tasks that wait for evidence."""
        self.news.set()
        self.news = trio.Event()

    def connected(self, **facts: object) -> None:
        self.connections += 1
        self.unreachable = ""
        self._logged_answers.clear()
        self._question = evidence.Frame(self.connections, asks=True)
        self._notice = evidence.Frame(self.connections, asks=False)
        self.take(evidence.Connected(self.connections))
        self.connection_log.info("guest connected", **facts)
        self._emit(GuestEvent.CONNECTED)

    def gone(self, end: Gone) -> None:
        """Note that the connection ended."""
        self.last_end = end
        stop = self.model.stop
        self.take(evidence.Disconnected(self.connections))
        by = {"stop_by": stop.by, "stop": stop.how} if stop else {}
        self.connection_log.info(
            "guest gone", why=end.why, **by, throttled=self.throttled, dropped_answers=self.dropped_answers
        )
        self._emit(GuestEvent.GONE)

    def heard_answer(self) -> None:
        """Note an answer on the live connection, in time or late."""
        self.take(evidence.Answer(self.connections))

    def probed(self) -> None:
        """Note that the harmless question is sent."""
        self.take(evidence.ProbeSent(self.connections))

    def unheard(self) -> None:
        """Note that the harmless question was not answered in time."""
        self.take(evidence.Silence(self.connections))

    def machine_reset(self) -> None:
        """Note a reset that QMP reported: the guest's state is unknown until its next sign of life."""
        was = self.model.channel
        self.take(evidence.Reset())
        self._logged_answers.clear()
        if was in {State.READY, State.SILENT}:
            self._emit(GuestEvent.REBOOTED)

    def machine_paused(self, cause: str, remedy: str) -> None:
        """Note a pause that QMP reported, with its cause and the remedy, such as a command."""
        known = self.model.pause
        self.take(evidence.Paused(cause, remedy))
        if known is None or (known.cause, known.remedy) != (cause, remedy):
            self.connection_log.warning("guest paused", why=cause, remedy=remedy)
            self._emit(GuestEvent.PAUSED)

    def machine_resumed(self) -> None:
        """Note that QMP reported a resume, or that QMP ended: a pause and earlier signs of life no longer count."""
        was_paused = self.model.pause is not None
        self.take(evidence.Resumed())
        if was_paused:
            self.connection_log.info("guest resumed")
            self._emit(GuestEvent.RESUMED)

    def stopping(self, by: str, how: str) -> None:
        """Note that a client requests a power-off or reboot."""
        self.take(evidence.StopAsked(by, how))
        self.log.info("stop requested", by=by, how=how)
        self._emit(GuestEvent.STOPPING)

    def freezing(self, by: str, until: evidence.Moment) -> None:
        """Note that a freeze is being sent, to be thawed at `until`."""
        self.take(evidence.FreezeSent(by, until))
        self._emit(GuestEvent.FROZEN)  # also for a later end: other hosts must know it before they thaw

    def thawed(self, covers: int) -> None:
        """Note the answer to a thaw that was sent after `covers` freezes."""
        owed = self.model.debt
        self.take(evidence.ThawAnswered(covers))
        if owed and not self.model.debt:
            self._emit(GuestEvent.THAWED)

    def called(self, command: Command, outcome: str, data: bytes | None = None) -> None:
        """Note the outcome of a call; `data` is the answer, if any."""
        name = command.name.lower() if isinstance(command, GuestCommand) else "other"
        self.calls[name, outcome] += 1
        if command is GuestCommand.GET_INFORMATION and data is not None:
            self.information = Information(data, now())

    def _emit(self, event: GuestEvent) -> None:
        for listener in self.listeners:
            listener(self, event)

    def request(self, request: Request, at: float) -> PreparedAnswer | None:
        """Note a request at a time of trio's clock. Return the answer; None if the request needs none."""
        command = request.command
        if isinstance(command, HostCommand) or command in self._unknown or self._is_new(command):
            self.counts[command] += 1
        else:
            self.counts[OTHER] += 1
        if command is HostCommand.GUEST_POWER:
            self._power(request)
        elif self.model.channel is _READY:  # the hot path: every frame
            self.model.take(self._question if request.needs_response else self._notice, at)
        else:
            self.take(self._question if request.needs_response else self._notice, first=command)
        if command is HostCommand.GUEST_TIMESTAMP:
            self._timestamp(request)
        if not request.needs_response:
            return None
        data = self.answers.get(command, EMPTY)
        if self._logged_answers.get(command) is not data:
            self._log_answer(command, data)
        return prepare(command, data)

    # -- log messages

    def _is_new(self, command: int) -> bool:
        """Note an unknown command. Return False after too many."""
        if len(self._unknown) >= UNKNOWN_KEPT:
            return False
        self._unknown.add(command)
        self.lines.warning("unknown command from guest, answered empty", command=command)
        return True

    def _power(self, request: Request) -> None:
        self.boots += 1
        # A guest sends this at its start, before any question. If it has asked before, it started again.
        again = self.model.has_asked
        self._logged_answers.clear()
        self.take(evidence.Booted(self.connections), first=request.command)
        self.lines.info(
            "guest rebooted" if again else "guest started",
            starts_seen=self.boots,
            data=decode_text(request.data[:SHOWN]),
        )
        if again:
            self._emit(GuestEvent.REBOOTED)

    def _timestamp(self, request: Request) -> None:
        try:
            self.reported_time = decode_integer(request.data)
        except PayloadError:
            return  # the session logs it, as every problem of data
        self.lines.info("guest reported its time", time=self.reported_time)

    def _log_answer(self, command: Command, data: bytes) -> None:
        """Log each answer that is new since the boot."""
        if not isinstance(command, HostCommand):
            return
        text = decode_text(data)
        self._logged_answers[command] = data
        self.answered[command] = Answered(text, time.time())
        if data:
            self.lines.info("guest asked", command=_name(command), answer=text)
        else:
            self.lines.info("guest asked, answer empty", command=_name(command))


def now() -> evidence.Moment:
    """Return the current time, of trio's clock and of the wall clock."""
    return evidence.Moment(trio.current_time(), time.time())


def _name(command: Command) -> str:
    return f"{command.value} {command.name}" if isinstance(command, HostCommand) else str(int(command))
