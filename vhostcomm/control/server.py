"""An HTTP server on sockets that are bound already. Import it when there is a client: it imports h11."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from vhostcomm.control.connection import Application, HttpConnection
from vhostcomm.control.listener import HttpListener
from vhostcomm.control.problems import Problem
from vhostcomm.log.logs import Log

CONNECTION_LIMIT: Final = 128
"""Connections at once: what clients leave open must not cost the guests their descriptors."""

RESERVED: Final = 16
"""Of these, the ones for urgent requests: a guest can be stopped while all others wait for an answer."""

ACCEPT_PAUSE: Final = 0.2
"""Seconds before the next try where there is no descriptor for a connection."""

LOG_INTERVAL: Final = 60.0
"""Seconds between two log messages of one kind that strangers cause."""


class StrangersLog:
    """Log messages that any client can cause: the first one at once, further ones once a minute with their count.

    Args:
        log: where they go.
        nursery: waits for the minutes to pass.
    """

    def __init__(self, log: Log, nursery: trio.Nursery) -> None:
        self._log = log
        self._nursery = nursery
        self._counts: dict[str, int] = {}
        self._facts: dict[str, dict[str, object]] = {}

    def warning(self, event: str, **facts: object) -> None:
        """Log an event, or count it. A count is logged with the facts of the last event."""
        if event in self._counts:
            self._counts[event] += 1
            self._facts[event] = facts
            return
        self._counts[event] = 0
        self._log.warning(event, times=1, **facts)
        self._nursery.start_soon(self._log_later, event)

    async def _log_later(self, event: str) -> None:
        try:
            counted = True
            while counted:
                await trio.sleep(LOG_INTERVAL)
                counted = self._log_count(event)
        finally:
            self._log_count(event)
            del self._counts[event]

    def _log_count(self, event: str) -> bool:
        times, self._counts[event] = self._counts[event], 0
        if times:
            self._log.warning(event, times=times, **self._facts[event])
        return times > 0


class _Slots:
    """The open connections, the one that has waited longest for a request first."""

    def __init__(self) -> None:
        self._open: dict[HttpConnection, None] = {}
        self._busy: set[HttpConnection] = set()

    def add(self, connection: HttpConnection) -> None:
        self._open[connection] = None

    def remove(self, connection: HttpConnection) -> None:
        self._open.pop(connection, None)

    @property
    def full(self) -> bool:
        return len(self._open) >= CONNECTION_LIMIT

    def evict(self) -> HttpConnection | None:
        """End the connection that has waited longest for a request to be complete; clients never admitted go first."""
        waiting = [each for each in self._open if each not in self._busy]
        oldest = next((each for each in waiting if not each.admitted), waiting[0] if waiting else None)
        if oldest:
            self.remove(oldest)
            oldest.evicted.cancel()
        return oldest

    @contextmanager
    def answering(self, connection: HttpConnection, urgent: bool) -> Iterator[None]:
        """Hold a slot while a request is answered.

        Raises:
            Problem: too many are being answered.
            trio.ClosedResourceError: it was evicted, so its client will get no answer: nothing may be done for it.
        """
        if connection.evicted.cancel_called:
            raise trio.ClosedResourceError
        if len(self._busy) >= CONNECTION_LIMIT - RESERVED and not urgent:
            why = f"{len(self._busy)} requests are being answered; only stops and thaws get through"
            raise Problem(503, "busy", why, "try again later", {"Retry-After": "1"})
        self._busy.add(connection)
        try:
            yield
        finally:
            self._busy.discard(connection)
            if connection in self._open:  # it waits from now on
                self.remove(connection)
                self.add(connection)


async def serve_app(
    app: Application,
    listeners: Sequence[HttpListener],
    log: Log,
    strangers: StrangersLog,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application until cancelled. A request's `scope["state"]["peer"]` says who is connected.

    A new connection takes the place of one that is idle or unfinished: silent clients can't keep others out.

    Args:
        app: answers the requests.
        listeners: bound by the caller, so that a bad address is an error of the start, and closed by the caller.
        log: for errors.
        strangers: for what clients cause.
        task_status: started when connections are accepted.
    """
    slots = _Slots()

    async def handle(connection: HttpConnection) -> None:
        try:
            await connection.run()
        except Exception:
            log.exception("internal error, the control connection is closed; please report it")
        finally:
            slots.remove(connection)

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                strangers.warning("control connection waits", why=error.strerror)
                slots.evict()
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if slots.full and not slots.evict():
                strangers.warning("control connection refused", why=f"{CONNECTION_LIMIT} requests are being answered")
                stream.socket.close()
                continue
            connection = HttpConnection(stream, app, slots.answering, log)
            slots.add(connection)
            nursery.start_soon(handle, connection)

    async def keep_accepting(listener: HttpListener) -> None:
        while True:
            bound_again = listener.bound_again
            with trio.socket.from_stdlib_socket(listener.sock.dup()) as own:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(accept, trio.SocketListener(own))
                    await bound_again.wait()
                    accepting.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for each in listeners:
            nursery.start_soon(keep_accepting, each)
        task_status.started()
