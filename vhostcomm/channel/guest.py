"""One guest: what it is answered, and what is known of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from vchannel import (
    Command,
    GuestCommand,
    HostCommand,
    PayloadError,
    PreparedAnswer,
    Request,
    decode_integer,
    decode_text,
)
from vhostcomm.channel.trace import Trace
from vhostcomm.config.address import Address
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.guest import (
    PROBE_TIMEOUT,
    Answer,
    Answered,
    Booted,
    Connected,
    Debt,
    Disconnected,
    Evidence,
    Frame,
    FreezeSent,
    Information,
    Model,
    Moment,
    Pause,
    Paused,
    ProbeSent,
    Reset,
    Resumed,
    Silence,
    State,
    Stop,
    StopAsked,
    ThawAnswered,
    events,
)
from vhostcomm.guest.answers import EMPTY, answers, prepare
from vhostcomm.guest.events import GuestEvent
from vhostcomm.log.logs import LimitedLog, Log

UNKNOWN_KEPT: Final = 64
"""Unknown commands counted and logged one by one; a guest that tries them all must not fill memory or the log."""

OTHER: Final = -1
"""Where the rest of them are counted together."""

SHOWN: Final = 512
"""Bytes of a guest's data that are decoded for a log line, which shows 200 characters."""


_READY: Final = State.READY  # looked up once: it is asked for with every frame


@define
class Guest:
    """A guest's identity, and what is known of it. The session feeds it with evidence; others only look.

    Times are seconds since 1970, or None for never.
    """

    name: str
    address: Address
    host: HostIdentity
    identity: GuestIdentity
    log: Log
    model: Model = field(factory=Model)
    boots: int = 0
    told_time: int | None = None
    connections: int = 0
    counts: Counter[int] = field(factory=Counter)
    """Requests by command."""
    answered: dict[int, Answered] = field(factory=dict)
    refused_frames: int = 0
    skipped_bytes: int = 0
    dropped_answers: int = 0
    listeners: list[Callable[[Guest, GuestEvent], None]] = field(factory=list, repr=False)
    calls: Counter[tuple[str, str]] = field(factory=Counter)
    """Questions to it, by command and outcome."""
    information: Information | None = None
    """Its last answer about itself."""
    last_end: events.Gone | None = None
    """How its last connection ended; None before the first end."""
    unreachable: str = ""
    """Why QEMU's socket can't be connected to, and what to do, where it is we who connect."""
    throttled: int = 0
    trace: Trace | None = field(default=None, repr=False)
    news: trio.Event = field(factory=trio.Event, repr=False)
    """Set, and replaced, with every piece of evidence but the frames of a guest that is ready."""
    lines: LimitedLog = field(init=False, repr=False)
    """Log messages that its frames cause."""
    comings: LimitedLog = field(init=False, repr=False)
    """Log messages that its connections cause."""
    answers: dict[Command, bytes] = field(init=False)
    _question: Frame = field(default=Frame(0, asks=True), init=False)
    _notice: Frame = field(default=Frame(0, asks=False), init=False)
    _logged_answers: dict[int, bytes] = field(factory=dict, init=False)
    _unknown: set[int] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.lines, self.comings = LimitedLog(self.log), LimitedLog(self.log)
        self.answers = answers(self.host, self.identity)
        self.model.entered = now()

    def change(self, host: HostIdentity, identity: GuestIdentity) -> None:
        """Answer as another from now on."""
        self.host, self.identity = host, identity
        self.answers = answers(host, identity)

    # -- what is known

    @property
    def state(self) -> State:
        return self.model.state

    @property
    def since(self) -> float:
        """When it came into its state."""
        return self.model.entered.wall

    @property
    def last_frame(self) -> float | None:
        """When it gave its last sign of life in this connection and boot: a frame of its own, or an answer."""
        heard = self.model.heard
        return None if heard is None else round(time.time() - max(0.0, trio.current_time() - heard), 3)

    @property
    def pause(self) -> Pause | None:
        """Why its machine is paused, if it is."""
        return self.model.pause

    @property
    def stop(self) -> Stop | None:
        """The last stop that was asked for, since its boot."""
        return self.model.stop

    @property
    def debt(self) -> Debt | None:
        """The thaw that it is owed, if a freeze was sent and no thaw answered since."""
        return self.model.debt

    @property
    def frozen_until(self) -> float | None:
        """When that thaw is due."""
        return self.model.debt.until.wall if self.model.debt else None

    # -- evidence

    def take(self, evidence: Evidence, first: Command | None = None) -> None:
        """Feed the model, and tell what the channel's state became by it. `first` is the command of a frame."""
        moment, before = now(), self.model.channel
        self.model.take(evidence, moment.at, moment.wall)
        if self.model.channel is not before:
            if self.model.channel is State.READY:
                self.lines.info("guest ready", first="its answer to a question" if first is None else _name(first))
                self._emit(events.Ready())
            elif self.model.channel is State.SILENT:
                self.lines.warning("guest silent", why=f"no answer within {PROBE_TIMEOUT:g} s")
                self._emit(events.Silent())
        self.wake()

    def wake(self) -> None:
        """Let those look again who wait for evidence."""
        self.news.set()
        self.news = trio.Event()

    def connected(self, **facts: object) -> None:
        self.connections += 1
        self.unreachable = ""
        self._logged_answers.clear()
        self._question, self._notice = Frame(self.connections, asks=True), Frame(self.connections, asks=False)
        self.take(Connected(self.connections))
        self.comings.info("guest connected", **facts)
        self._emit(events.Connected())

    def gone(self, end: events.Gone) -> None:
        """Its connection ended."""
        self.last_end = end
        stop = self.model.stop
        self.take(Disconnected(self.connections, end.why))
        by = {"stop_by": stop.by, "stop": stop.how} if stop else {}
        self.comings.info(
            "guest gone", why=end.why, **by, throttled=self.throttled, dropped_answers=self.dropped_answers
        )
        self._emit(end)

    def heard_answer(self) -> None:
        """It answered a question on the live connection, in time or late."""
        self.take(Answer(self.connections))

    def probed(self) -> None:
        """The harmless question is sent."""
        self.take(ProbeSent(self.connections))

    def unheard(self) -> None:
        """The harmless question was not answered in time."""
        self.take(Silence(self.connections))

    def machine_reset(self, *, by_guest: bool) -> None:
        """QMP told that its machine was reset: nothing is known of it until it is heard again."""
        was = self.model.channel
        self.take(Reset(by_guest))
        self._logged_answers.clear()
        if was in {State.READY, State.SILENT}:
            self._emit(events.Rebooted())

    def machine_paused(self, cause: str, remedy: str) -> None:
        """QMP told that its machine is paused: why, and what to do, such as a command."""
        known = self.model.pause
        self.take(Paused(cause, remedy))
        if known is None or (known.cause, known.remedy) != (cause, remedy):
            self.log.warning("guest paused", why=cause, remedy=remedy)
            self._emit(events.Paused())

    def machine_resumed(self) -> None:
        """QMP told that its machine runs again, or QMP ended, so nobody knows of a pause any more."""
        if self.model.pause is None:
            return
        self.take(Resumed())
        self.log.info("guest resumed")
        self._emit(events.Resumed())

    def stopping(self, by: str, how: str) -> None:
        """Somebody asks it to stop or to start again."""
        self.take(StopAsked(by, how))
        self.log.info("stop asked for", by=by, how=how)
        self._emit(events.Stopping())

    def freezing(self, by: str, until: Moment) -> None:
        """A freeze is being sent, to be undone then."""
        owed = self.model.debt
        self.take(FreezeSent(by, until))
        if owed is None:
            self._emit(events.Frozen())

    def thawed(self, covers: int) -> None:
        """A thaw was answered, which was sent after so many freezes."""
        owed = self.model.debt
        self.take(ThawAnswered(covers))
        if owed and not self.model.debt:
            self._emit(events.Thawed())

    def called(self, command: Command, outcome: str, data: bytes | None = None) -> None:
        """It was asked something; `data` is its answer, if there is one."""
        name = command.name.lower() if isinstance(command, GuestCommand) else "other"
        self.calls[name, outcome] += 1
        if command is GuestCommand.GET_INFORMATION and data is not None:
            self.information = Information(data, now())

    def _emit(self, event: GuestEvent) -> None:
        for listener in self.listeners:
            listener(self, event)

    def request(self, request: Request, at: float) -> PreparedAnswer | None:
        """Take note of a request that came at that time of trio's clock. Returns its answer; None if it wants none."""
        command = request.command
        if isinstance(command, HostCommand) or command in self._unknown or self._is_new(command):
            self.counts[command] += 1
        else:
            self.counts[OTHER] += 1
        if command is HostCommand.GUEST_POWER:
            self._power(request)
        elif self.model.channel is _READY:  # the path of every frame
            self.model.take(self._question if request.needs_response else self._notice, at)
        else:
            self.take(self._question if request.needs_response else self._notice, first=command)
        if command is HostCommand.GUEST_TIMESTAMP:
            self._timestamp(request)
        if not request.needs_response:
            return None
        data = self.answers.get(command, EMPTY)
        if self._logged_answers.get(command) is not data:
            self._tell_answer(command, data)
        return prepare(command, data)

    # -- what it means

    def _is_new(self, command: int) -> bool:
        """Take note of an unknown command; False where too many have come already."""
        if len(self._unknown) >= UNKNOWN_KEPT:
            return False
        self._unknown.add(command)
        self.lines.warning("guest asked something unknown, answered with nothing", command=command)
        return True

    def _power(self, request: Request) -> None:
        self.boots += 1
        # At its start a guest tells this before it asks anything: a guest that asked before has started again.
        again = self.model.has_asked
        self._logged_answers.clear()
        self.take(Booted(self.connections), first=request.command)
        self.lines.info(
            "guest rebooted" if again else "guest started",
            starts_seen=self.boots,
            data=decode_text(request.data[:SHOWN]),
        )
        if again:
            self._emit(events.Rebooted())

    def _timestamp(self, request: Request) -> None:
        try:
            self.told_time = decode_integer(request.data)
        except PayloadError:
            return  # told by the session, as every problem of data
        self.lines.info("guest told its time", time=self.told_time)

    def _tell_answer(self, command: Command, data: bytes) -> None:
        """One line for each answer that is new since the boot."""
        if not isinstance(command, HostCommand):
            return
        text = decode_text(data)
        self._logged_answers[command] = data
        self.answered[command] = Answered(text, time.time())
        if data:
            self.lines.info("guest asked", command=_name(command), answer=text)
        else:
            self.lines.info("guest asked what nobody knows the answer to", command=_name(command))


def now() -> Moment:
    """The time, on trio's clock and on the wall's."""
    return Moment(trio.current_time(), time.time())


def _name(command: Command) -> str:
    return f"{command.value} {command.name}" if isinstance(command, HostCommand) else str(int(command))
