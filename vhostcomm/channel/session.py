"""One connection of a guest: its stream ↔ its `Connection`."""

from __future__ import annotations

import socket
from logging import DEBUG
from typing import Final, assert_never

import trio
from attrs import define, field

from vchannel import (
    NEED_DATA,
    NO_NUL,
    BytesSkipped,
    Command,
    Connection,
    FrameRefused,
    Request,
    Response,
    Role,
    SkipReason,
    UnsolicitedResponse,
)
from vhostcomm.channel.calls import OUTSTANDING_LIMIT, URGENT, CallError, Outcome, named
from vhostcomm.channel.frame_tap import Recording, Tap
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.sending import GoneError, Sender
from vhostcomm.channel.sockets import has_hung_up
from vhostcomm.channel.throttle import LANE_READ, READ, Throttle
from vhostcomm.config.models import Service
from vhostcomm.guest.events import Gone

DRAIN_IDLE: Final = 0.05
"""Seconds without a byte after which QEMU has sent everything that it held back."""


@define(eq=False)
class _Waiter:
    """A call that waits for its answer."""

    command: Command
    done: trio.Event = field(factory=trio.Event)
    response: Response | None = None


@define(eq=False)
class Session:
    """Serves one connection until it ends.

    It uses the socket without trio's stream, whose bookkeeping would double the cost of each frame.

    Args:
        guest: determined by the socket, never by the content of a frame.
        sock: connected and non-blocking; closed at the end.
        service: has the deadlines.
        throttle: the guest's limits, for all its connections; None for no limit.
        recording: for the frames; None for no recording.
    """

    _guest: Guest
    _sock: socket.socket
    _service: Service
    _throttle: Throttle | None = None
    _recording: Recording | None = None
    _connection: Connection = field(factory=lambda: Connection(Role.HOST), init=False)
    _tap: Tap = field(init=False)
    _sender: Sender = field(init=False)
    _calls: dict[int, _Waiter] = field(factory=dict, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _draining: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        log = self._guest.log
        self._tap = Tap(log if log.is_enabled_for(DEBUG) else None, self._recording, self._guest.traces)
        self._sender = Sender(self._guest, self._sock, self._service.send_timeout, self._tap)

    async def run(self) -> Gone:
        """Serve until the connection ends or `drain` is called. Return the reason."""
        try:
            with self._scope:
                await self._serve(None)
            if not self._draining:
                return Gone("QEMU closed the connection")
            with trio.move_on_after(self._service.drain_timeout):
                await self._sender.send_rest()
                await self._serve(DRAIN_IDLE)
        except GoneError as error:
            return Gone(str(error))
        finally:
            self._finish()
        return Gone("the daemon stops serving it", by_us=True)

    def drain(self) -> None:
        """Answer what has been asked, then end.

        Closing while QEMU holds data back leaks a descriptor of the guest's queue, and 128 leaks disable the channel
        until the guest reboots. So read until no data arrives.
        """
        self._draining = True
        self._scope.cancel()

    def is_dead(self) -> bool:
        """Return whether the other end has closed, even if that wasn't read yet."""
        return has_hung_up(self._sock)

    def abandon(self) -> None:
        """End at once, because the peer no longer reads answers."""
        self._scope.cancel()

    def _finish(self) -> None:
        try:
            self._connection.discard_partial(SkipReason.CLOSED)
            self._events()
            self._tap.close()
        finally:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            for waiter in self._calls.values():
                waiter.done.set()

    async def _serve(self, idle: float | None) -> None:
        """Read and answer: for ever, or until `idle` seconds pass without a byte."""
        connection, sock, throttle = self._connection, self._sock, self._throttle
        while True:
            if idle is None and not connection.held:
                await trio.lowlevel.wait_readable(sock)
            else:
                with trio.move_on_after(self._service.partial_timeout if idle is None else idle) as waiting:
                    await trio.lowlevel.wait_readable(sock)
                if waiting.cancelled_caught:
                    if idle is not None:
                        return
                    connection.discard_partial()
                    self._events()
                    continue
            rested = throttle is not None and throttle.ready() and await throttle.enter()
            size = READ  # of a read that fails
            try:
                size, out, sent = self._turn(LANE_READ if throttle is not None and throttle.throttled else READ)
            finally:
                if throttle is not None:
                    throttle.turned(size=size)
            if rested:
                self._guest.throttled += 1
                self._guest.lines.repeated("guest causes too much work, reading more slowly")
            if sent < len(out):
                await self._sender.finish(out, sent)
                if throttle is not None:
                    throttle.waited()
            del out  # a thousand idle guests' last answers are 4 MB
            if throttle is not None and (wait := throttle.read(size)):
                await self._wait_throttled(wait)

    def _turn(self, limit: int) -> tuple[int, bytes, int]:
        """Read once and answer. Return the number of bytes read, the answers, and how many of their bytes were sent."""
        try:
            data = self._sock.recv(limit)
        except BlockingIOError:
            return 0, b"", 0
        except OSError as error:
            raise GoneError(f"the connection broke: {error.strerror}") from None
        if not data:
            raise GoneError("QEMU closed the connection")
        self._connection.receive_data(data)
        if not (out := self._events()):
            return len(data), b"", 0
        frames = out[0] if len(out) == 1 else b"".join(out)
        return len(data), frames, self._sender.begin(frames)

    async def _wait_throttled(self, seconds: float) -> None:
        """Stop reading until the guest is within its rate again. Never disconnect for this: see `drain`."""
        assert self._throttle
        self._guest.throttled += 1
        self._guest.lines.repeated(
            "guest sends too fast, reading more slowly", frames_a_second=self._service.frame_rate
        )
        await trio.sleep(seconds)
        self._throttle.waited()

    def _events(self) -> list[bytes]:
        """Process all events. Return the frames to send."""
        connection, guest = self._connection, self._guest
        tap = self._tap if self._tap.is_observed else None
        out = []
        now = trio.current_time()  # once for all events, since this is the hot path
        while (event := connection.next_event()) is not NEED_DATA:
            if tap:
                tap.received(event)
            match event:
                case Request():
                    if event.problem and event.problem.why != NO_NUL:
                        guest.lines.repeated("guest sent odd data", command=int(event.command), problem=event.problem)
                    if (answer := guest.request(event, now)) is not None:
                        out.append(connection.answer(event, answer))
                case Response():
                    guest.heard_answer()
                    if event.problem:
                        guest.lines.repeated("guest sent odd data", command=int(event.command), problem=event.problem)
                    assert event.request is not None
                    if waiter := self._calls.get(event.request.request_id):
                        waiter.response = event
                        waiter.done.set()
                case UnsolicitedResponse():
                    guest.heard_answer()
                    command = int(event.response.command)
                    guest.lines.repeated("guest sent an unsolicited answer", command=command, why=event.why)
                case FrameRefused():
                    guest.refused_frames += 1
                    guest.lines.repeated("frame refused", why=event)
                case BytesSkipped():
                    guest.skipped_bytes += event.count
                    if event.reason is SkipReason.SILENCE:
                        guest.lines.repeated("half a frame dropped", bytes=event.count)
                    # Other reasons were logged with the refused frame.
                case _:
                    assert_never(event)
        return out

    # -- questions of the host

    async def exchange(self, command: Command, data: bytes, timeout: float, *, begun: float | None = None) -> Response:
        """Send a question and wait for its answer.

        The answer must arrive within `timeout` seconds after `begun`, a time of trio's clock; None means now.

        Raises:
            CallError: there is no answer; has the reason.
        """
        self.check_room(command)
        request = Request.of(command, data)
        waiter = self._calls[request.request_id] = _Waiter(command)
        try:
            with trio.move_on_at((trio.current_time() if begun is None else begun) + timeout):
                await self._sender.send(self._connection.send(request))
                await waiter.done.wait()
        except GoneError as error:
            raise CallError(command, Outcome.LOST, f"the connection ended: {error}") from None
        finally:
            self._connection.forget(request)
            del self._calls[request.request_id]
        if waiter.response is not None:
            return waiter.response
        if waiter.done.is_set():
            raise CallError(command, Outcome.LOST, "the connection ended before the answer")
        raise CallError(command, Outcome.TIMED_OUT, f"no answer to {named(command)} within {timeout:.3g} s")

    async def send(self, command: Command, data: bytes, timeout: float) -> None:
        """Send the guest a request that needs no answer. It, or QEMU, has `timeout` seconds to read it.

        Raises:
            CallError: it wasn't sent; has the reason.
        """
        with trio.move_on_after(timeout) as sending:
            try:
                await self._sender.send(self._connection.send(Request.of(command, data, needs_response=False)))
            except GoneError as error:
                raise CallError(command, Outcome.LOST, f"the connection ended: {error}") from None
        if sending.cancelled_caught:
            raise CallError(command, Outcome.TIMED_OUT, f"{named(command)} is not read within {timeout:.3g} s")

    @property
    def is_stuck(self) -> bool:
        """Return whether earlier frames are still unsent, because neither QEMU nor the guest reads."""
        return self._sender.is_stuck

    def check_room(self, command: Command) -> None:
        """Check the limits of waiting calls; urgent and ordinary calls are counted separately.

        Raises:
            CallError: too many such calls wait for the guest.
        """
        urgent = command in URGENT
        waiting = sum((each.command in URGENT) is urgent for each in self._calls.values())
        if waiting >= OUTSTANDING_LIMIT:
            raise CallError(command, Outcome.BUSY, f"{waiting} calls already wait for the guest")
