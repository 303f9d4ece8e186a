"""Asks one guest: what its model lets through is sent, what it doesn't waits or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

import trio

from vchannel import Command, GuestCommand, Response
from vhostcomm.channel.calls import CallError, Outcome, outcome_of
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.session import Session
from vhostcomm.guest import POWER_OFF, PROBE_TIMEOUT, Probe, Refuse, Send, State, Wait, Why, kind_of, may_ask, probe_due

STOPS: Final[dict[Command, str]] = {
    GuestCommand.POWEROFF: POWER_OFF,
    GuestCommand.REBOOT: "reboot",
    GuestCommand.RESET: "reset",
}
"""Questions after which a guest is gone, or starts again."""

HARMLESS: Final = GuestCommand.GET_INFORMATION
"""What a guest is asked to find out whether it is up: it does no harm whenever it is carried out."""


class Asker:
    """Asks a guest, over the connection that it has at the time.

    Args:
        guest: whose model decides.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._probing: trio.Event | None = None
        self.session: Session | None = None
        """The live connection."""
        self.nursery: trio.Nursery | None = None
        """Where probes run: they go on without whoever waited for them."""

    async def ask(
        self,
        command: Command,
        data: bytes = b"",
        *,
        timeout: float,
        by: str = "",
        sending: Callable[[], None] | None = None,
    ) -> Response:
        """Ask the guest, as far as its model lets this question through.

        Args:
            command: of `GuestCommand`, or a number.
            data: what goes with it.
            timeout: seconds for all of it: finding out whether the guest is up, waiting for it, and its answer.
            by: who asks, for the log and the guest's state.
            sending: called right before the question is sent, if it is.

        Raises:
            CallError: there is no answer; says why.
        """
        try:
            response = await self._ask(command, data, timeout, by, sending)
        except CallError as error:
            self._guest.called(command, error.outcome.value)
            raise
        self._guest.called(command, outcome_of(response), response.data)
        return response

    async def send(self, command: Command, *, timeout: float, by: str) -> None:
        """Send the guest a command that it is not to answer, as far as its model lets this through.

        Args:
            command: of `GuestCommand`, or a number.
            timeout: seconds to find out whether the guest is up, to wait for it, and to send.
            by: who asks, for the log and the guest's state.

        Raises:
            CallError: it isn't sent; says why.
        """
        deadline = trio.current_time() + timeout
        session = await self._reach(command, timeout, deadline)
        if how := STOPS.get(command):
            self._guest.stopping(by, how)
        await session.send(command, b"", max(0, deadline - trio.current_time()))

    def probe(self, age: float) -> trio.Event | None:
        """Find out whether the guest is up, where its last sign of life is that many seconds old, or there was none.

        Returns what is set when the question is answered or has timed out; None where nothing is to be found out now.
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
                raise self._refusal(command, Why.UNHEARD, f" within {timeout:.3g} s") from None
            raise

    async def _reach(self, command: Command, timeout: float, deadline: float) -> Session:
        """Wait until the guest may be asked that; finds out whether it is up where that isn't known."""
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

    def _refusal(self, command: Command, why: Why, within: str = "") -> CallError:
        name, pause = self._guest.name, self._guest.pause
        match why:
            case Why.ABSENT:
                return CallError(command, Outcome.NOT_CONNECTED, f"{name}: QEMU is not connected")
            case Why.PAUSED:
                cause = f": {pause.cause}; {pause.remedy}" if pause else ""
                return CallError(command, Outcome.PAUSED, f"{name}: the machine is paused{cause}")
            case Why.UNHEARD:
                silent = "QEMU is connected, but the guest has not asked anything, and does not answer"
                return CallError(command, Outcome.NOT_READY, f"{name}: {silent}{within}")
            case Why.SILENT:
                return CallError(command, Outcome.NOT_READY, f"{name}: the guest does not answer{within}")
        assert_never(why)

    def _start_probe(self) -> None:
        assert self.session is not None
        assert self.nursery is not None
        self._probing = trio.Event()
        self._guest.probed()
        self.nursery.start_soon(self._ask_harmlessly, self.session, self._probing)

    async def _ask_harmlessly(self, session: Session, ended: trio.Event) -> None:
        try:
            if session.is_stuck:  # nobody reads what was sent before, so more of it is no use
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
