"""One guest: what it is answered, and what is known of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from vchannel import (
    Command,
    GuestCommand,
    GuestInformation,
    HostCommand,
    PayloadError,
    PreparedAnswer,
    Request,
    decode_integer,
    decode_text,
)
from vhostcomm.address import Address
from vhostcomm.answers import EMPTY, answers, prepare
from vhostcomm.channel.calls import Outcome
from vhostcomm.channel.trace import Trace
from vhostcomm.identity import GuestIdentity, HostIdentity
from vhostcomm.logs import Log

UNKNOWN_KEPT: Final = 64
"""Unknown commands counted and logged one by one; a guest that tries them all must not fill memory or the log."""

OTHER: Final = -1
"""Where the rest of them are counted together."""

LINES_AT_ONCE: Final = 100.0
LINES_A_SECOND: Final = 1.0
"""Log lines of what a guest does: six boots' worth at once, and then no more than this."""


class State(Enum):
    """How far a guest is."""

    ABSENT = "absent"
    """Nobody is connected to its channel."""
    CONNECTED = "connected"
    """QEMU is; the guest has not sent a frame since its boot. That may take minutes, or never come."""
    READY = "ready"
    """The guest has sent a frame since its boot."""


@frozen
class Answered:
    """What a guest was last answered to a command, and when (seconds since 1970)."""

    text: str
    when: float


@frozen
class Stop:
    """That a guest was told to stop or to start again: by whom, how, and when (seconds since 1970)."""

    by: str
    how: str
    when: float


@frozen
class Information:
    """What a guest told of itself, and when (seconds since 1970)."""

    data: bytes
    when: float

    @property
    def address(self) -> str | None:
        """The first address in it, eth0's before others'; None where there is none, or it can't be read."""
        try:
            told = GuestInformation.from_data(self.data)
        except PayloadError:
            return None
        return told.address() or next((each.ip for each in told.interfaces if each.ip), None)

    @property
    def problem(self) -> str | None:
        """Why it can't be read; None if it can."""
        try:
            GuestInformation.from_data(self.data)
        except PayloadError as error:
            return str(error)
        return None

    @property
    def http_port(self) -> int | None:
        """DSM's port, if it is told."""
        try:
            return GuestInformation.from_data(self.data).http_port
        except PayloadError:
            return None


@define
class Guest:
    """A guest's identity and state. The session changes it; everybody else only looks.

    Times are seconds since 1970, or None for never.
    """

    name: str
    address: Address
    host: HostIdentity
    identity: GuestIdentity
    log: Log
    state: State = State.ABSENT
    since: float = field(factory=time.time)
    last_frame: float | None = None
    boots: int = 0
    told_time: int | None = None
    connections: int = 0
    counts: Counter[int] = field(factory=Counter)
    """Requests by command."""
    answered: dict[int, Answered] = field(factory=dict)
    refused_frames: int = 0
    skipped_bytes: int = 0
    dropped_answers: int = 0
    listeners: list[Callable[[Guest, str], None]] = field(factory=list, repr=False)
    """Called with the guest and what happened: connected, ready, rebooted, gone, stopping, frozen, thawed."""
    calls: Counter[tuple[str, str]] = field(factory=Counter)
    """What it was asked, by command and outcome."""
    information: Information | None = None
    """The last that it told of itself."""
    unanswered: float | None = None
    """When it last left unanswered what its information is, if it has not answered since."""
    stop: Stop | None = None
    """The last stop that somebody asked for, since its boot."""
    gone_why: str = ""
    may_be_up: bool | None = None
    """Whether it may have been up before its QEMU connected; None where QEMU's age isn't known, and the daemon's tells nothing."""
    frozen_until: float | None = None
    """When its file systems are thawed by us, if they are frozen by us."""
    throttled: int = 0
    trace: Trace | None = field(default=None, repr=False)
    answers: dict[Command, bytes] = field(init=False)
    _asked_since_boot: bool = field(default=False, init=False)
    _told: dict[int, bytes] = field(factory=dict, init=False)
    _unknown: set[int] = field(factory=set, init=False)
    _lines: float = field(default=0.0, init=False)
    _lines_since: float = field(default=-1e9, init=False)
    _left_out: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.answers = answers(self.host, self.identity)

    def change(self, host: HostIdentity, identity: GuestIdentity) -> None:
        """Answer as another from now on."""
        self.host, self.identity = host, identity
        self.answers = answers(host, identity)

    def _enter(self, state: State) -> None:
        self.state = state
        self.since = time.time()

    # -- what the session tells

    def connected(self, may_be_up: bool | None = None, **facts: object) -> None:
        self.connections += 1
        self.may_be_up = may_be_up
        self.stop = None
        self._boot()
        self._enter(State.CONNECTED)
        self.log.info("guest connected", **facts)
        self.happened("connected")

    def gone(self, why: str) -> None:
        self._enter(State.ABSENT)
        self.gone_why, self.frozen_until = why, None
        by = {"stop_by": self.stop.by, "stop": self.stop.how} if self.stop else {}
        self.log.info("guest gone", why=why, **by, throttled=self.throttled, dropped_answers=self.dropped_answers)
        self.happened("gone")

    def found_up(self) -> None:
        """It has answered a question, so it is up, though it has asked nothing on this connection."""
        if self.state is State.CONNECTED:
            self.last_frame = time.time()
            self._asked_since_boot = True
            self._enter(State.READY)
            self.log.info("guest ready", first="its answer to a question of ours")
            self.happened("ready")

    def restarted(self) -> None:
        """Its machine was reset, as QEMU tells its supervisor: it is not ready until it sends a frame again."""
        if self.state is State.READY:
            self.stop = None
            self._boot()
            self._enter(State.CONNECTED)
            self.happened("rebooted")

    def stopping(self, by: str, how: str) -> None:
        """Somebody asks it to stop or to start again."""
        self.stop = Stop(by, how, time.time())
        self.log.info("stop asked for", by=by, how=how)
        self.happened("stopping")

    def called(self, command: Command, outcome: str, data: bytes | None = None) -> None:
        """It was asked something; `data` is its answer, if there is one."""
        name = command.name.lower() if isinstance(command, GuestCommand) else "other"
        self.calls[name, outcome] += 1
        if command is not GuestCommand.GET_INFORMATION:
            return
        if data is not None:
            self.information, self.unanswered = Information(data, time.time()), None
        elif outcome == Outcome.TIMED_OUT.value:
            self.unanswered = time.time()

    def froze(self, until: float | None) -> None:
        """Its file systems are held still until then (seconds since 1970), or go on."""
        changed = (until is None) != (self.frozen_until is None)
        self.frozen_until = until
        if changed:
            self.happened("thawed" if until is None else "frozen")

    def happened(self, what: str) -> None:
        """Tell the listeners."""
        for listener in self.listeners:
            listener(self, what)

    def request(self, request: Request) -> PreparedAnswer | None:
        """Take note of a request. Returns its answer; None if it wants none."""
        command = request.command
        if isinstance(command, HostCommand) or command in self._unknown or self._is_new(command):
            self.counts[command] += 1
        else:
            self.counts[OTHER] += 1
        self.last_frame = time.time()
        if self.state is not State.READY:
            self._enter(State.READY)
            self.log.info("guest ready", first=_name(command))
            self.happened("ready")
        if command is HostCommand.GUEST_POWER:
            self._power(request)
        elif command is HostCommand.GUEST_TIMESTAMP:
            self._timestamp(request)
        if not request.needs_response:
            return None
        self._asked_since_boot = True
        data = self.answers.get(command, EMPTY)
        if self._told.get(command) is not data:
            self._tell_answer(command, data)
        return prepare(command, data)

    # -- what it means

    def _is_new(self, command: int) -> bool:
        """Take note of an unknown command; False where too many have come already."""
        if len(self._unknown) >= UNKNOWN_KEPT:
            return False
        self._unknown.add(command)
        self._tell("guest asked something unknown, answered with nothing", "warning", command=command)
        return True

    def _tell(self, what: str, level: str = "info", **facts: object) -> None:
        """Log what a guest can bring about as often as it likes: some lines at once, and then a line a second."""
        now = time.monotonic()
        self._lines = min(LINES_AT_ONCE, self._lines + (now - self._lines_since) * LINES_A_SECOND)
        self._lines_since = now
        if self._lines < 1:
            self._left_out += 1
            return
        self._lines -= 1
        if self._left_out:
            facts["lines_left_out"], self._left_out = self._left_out, 0
        getattr(self.log, level)(what, **facts)

    def _boot(self) -> None:
        self._asked_since_boot = False
        self.frozen_until = self.unanswered = None
        self._told.clear()

    def _power(self, request: Request) -> None:
        self.boots += 1
        # At its start a guest tells this before it asks anything: where it has asked, it has started again.
        if self._asked_since_boot:
            self._tell("guest rebooted", starts_seen=self.boots, data=decode_text(request.data))
            self._enter(State.READY)
            self.stop = None
            self.happened("rebooted")
        else:
            self._tell("guest started", starts_seen=self.boots, data=decode_text(request.data))
        self._boot()

    def _timestamp(self, request: Request) -> None:
        try:
            self.told_time = decode_integer(request.data)
        except PayloadError:
            return  # told by the session, as every problem of data
        self._tell("guest told its time", time=self.told_time)

    def _tell_answer(self, command: Command, data: bytes) -> None:
        """One line for each answer that is new since the boot."""
        if not isinstance(command, HostCommand):
            return
        text = decode_text(data)
        self._told[command] = data
        self.answered[command] = Answered(text, time.time())
        if data:
            self._tell("guest asked", command=_name(command), answer=text)
        else:
            self._tell("guest asked what nobody knows the answer to", command=_name(command))


def _name(command: Command) -> str:
    return f"{command.value} {command.name}" if isinstance(command, HostCommand) else str(int(command))
