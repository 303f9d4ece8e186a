"""Send questions to one guest: the guest's model decides what is sent, what waits and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from vchannel import Command, GuestCommand, Response
from vhostcomm.channel.calls import CallError, Outcome, outcome_of
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.session import Session
from vhostcomm.guest.model import PROBE_TIMEOUT, State
from vhostcomm.guest.questions import POWER_OFF, Probe, Refuse, Send, Wait, kind_of, may_ask, probe_due

STOPS: Final[dict[Command, str]] = {
    GuestCommand.POWEROFF: POWER_OFF,
    GuestCommand.REBOOT: "reboot",
    GuestCommand.RESET: "reset",
}
"""Questions after which a guest goes away or starts again."""

HARMLESS: Final = GuestCommand.GET_INFORMATION
"""The question that finds out whether a guest is up: it is harmless, whenever the guest gets it."""


class Asker:
    """Sends questions to a guest, over the connection that exists at the time."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._probing: trio.Event | None = None
        self.session: Session | None = None
        """The live connection."""
        self.nursery: trio.Nursery | None = None
        """Where probes run, so that they continue without the clients that wait for them."""

    async def ask(
        self,
        command: Command,
        data: bytes = b"",
        *,
        timeout: float,
        by: str = "",
        sending: Callable[[], None] | None = None,
    ) -> Response:
        """Send a question and wait for the answer, if the guest's model allows it.

        Args:
            timeout: seconds for everything: to find out whether the guest is up, to wait for it, and for its answer.
            by: the client, for the log and the guest's state.
            sending: called immediately before the question is sent.

        Raises:
            CallError: there is no answer; has the reason.
        """
        try:
            response = await self._ask(command, data, timeout, by, sending)
        except CallError as error:
            self._guest.called(command, error.outcome.value)
            raise
        self._guest.called(command, outcome_of(response), response.data)
        return response

    async def send(self, command: Command, *, timeout: float, by: str) -> None:
        """Send a command that needs no answer, if the guest's model allows it. The arguments are as in `ask`.

        Raises:
            CallError: it wasn't sent; has the reason.
        """
        deadline = trio.current_time() + timeout
        session = await self._reach(command, timeout, deadline)
        if how := STOPS.get(command):
            self._guest.stopping(by, how)
        await session.send(command, b"", max(0, deadline - trio.current_time()))

    def probe(self, age: float) -> trio.Event | None:
        """Probe the guest if its last sign of life is older than `age` seconds, or if there was none.

        Returns an event that is set when the probe is answered or has timed out; None if no probe is useful now.
        """
        if self._probing is None and probe_due(self._guest.model, trio.current_time(), age):
            self._start_probe()
        return self._probing

    async def _ask(
        self, command: Command, data: bytes, timeout: float, by: str, sending: Callable[[], None] | None
    ) -> Response:
        begun = trio.current_time()
        session = await self._reach(command, timeout, begun + timeout)
        session.check_room(command)
        if how := STOPS.get(command):
            self._guest.stopping(by or "the daemon", how)
        if sending:
            sending()
        if command is not HARMLESS:
            return await session.exchange(command, data, timeout, begun=begun)
        asked = trio.current_time()
        self._guest.probed()
        try:
            return await session.exchange(command, data, timeout, begun=begun)
        except CallError as error:
            self._note_silence(session, error, timeout - (asked - begun))
            if error.outcome is Outcome.TIMED_OUT and self._guest.model.channel is State.CONNECTED:
                raise self._refusal(command, State.CONNECTED, f" within {timeout:.3g} s") from None
            raise

    async def _reach(self, command: Command, timeout: float, deadline: float) -> Session:
        """Wait until the model allows the command; probe the guest if its state is unknown."""
        kind = kind_of(command)
        while True:
            now, news = trio.current_time(), self._guest.news
            match may_ask(self._guest.model, kind, now, probing=self._probing is not None):
                case Send():
                    assert self.session is not None
                    return self.session
                case Refuse(why):
                    raise self._refusal(command, why)
                case Probe(why):
                    until = deadline
                    self._start_probe()
                case Wait(until, why):
                    pass
            if now >= deadline:
                raise self._refusal(command, why, f" within {timeout:.3g} s")
            with trio.move_on_at(min(until, deadline)):
                await news.wait()

    def _refusal(self, command: Command, why: State, within: str = "") -> CallError:
        name, pause = self._guest.name, self._guest.model.pause
        match why:
            case State.ABSENT:
                return CallError(command, Outcome.NOT_CONNECTED, f"{name}: QEMU is not connected")
            case State.PAUSED:
                cause = f": {pause.cause}; {pause.remedy}" if pause else ""
                return CallError(command, Outcome.PAUSED, f"{name}: the machine is paused{cause}")
            case State.CONNECTED:
                silent = "QEMU is connected, but the guest has shown no sign of life, and does not answer"
                return CallError(command, Outcome.NOT_READY, f"{name}: {silent}{within}")
            case _:
                return CallError(command, Outcome.NOT_READY, f"{name}: the guest does not answer{within}")

    def _start_probe(self) -> None:
        assert self.session is not None
        assert self.nursery is not None
        self._probing = trio.Event()
        self._guest.probed()
        self.nursery.start_soon(self._ask_harmlessly, self.session, self._probing)

    async def _ask_harmlessly(self, session: Session, ended: trio.Event) -> None:
        try:
            if session.is_stuck:  # earlier frames are still unread, so more are useless
                await trio.sleep(PROBE_TIMEOUT)
                if session is self.session:
                    self._guest.unheard()
                return
            response = await session.exchange(HARMLESS, b"", PROBE_TIMEOUT)
        except CallError as error:
            self._guest.called(HARMLESS, error.outcome.value)
            self._note_silence(session, error, PROBE_TIMEOUT)
        else:
            self._guest.called(HARMLESS, outcome_of(response), response.data)
        finally:
            self._probing = None
            ended.set()
            self._guest.wake()

    def _note_silence(self, session: Session, error: CallError, waited: float) -> None:
        if error.outcome is Outcome.TIMED_OUT and waited >= PROBE_TIMEOUT and session is self.session:
            self._guest.unheard()
