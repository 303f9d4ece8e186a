"""A guest's port in a test, and guests that answer the host's commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from tests.daemon.test_session import Ends
from vchannel import NEED_DATA, Command, Connection, GuestCommand, Request, Role
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.port import Port
from vhostcomm.config.address import Listen
from vhostcomm.config.models import Service

INFORMATION, IP, OFF = GuestCommand.GET_INFORMATION, GuestCommand.GET_IP, GuestCommand.POWEROFF


def outcome(caught: pytest.ExceptionInfo[CallError]) -> Outcome:
    return caught.value.outcome


@contextmanager
def opened(where: Path) -> Iterator[tuple[Ends, Port]]:
    """A guest's port that isn't run yet."""
    ends = Ends(Service())
    ends.guest.address = Listen(where)
    port = Port(ends.guest, Service())
    port.open()
    try:
        yield ends, port
    finally:
        ends.close()


async def answer_all(stream: trio.SocketStream, asked_for: list[Command], *, after: float = 0.0) -> None:
    """A guest that answers each question after a delay in seconds."""
    guest = Connection(Role.GUEST)
    async for data in stream:
        guest.receive_data(data)
        while (event := guest.next_event()) is not NEED_DATA:
            assert isinstance(event, Request)
            asked_for.append(event.command)
            await trio.sleep(after)
            await stream.send_all(guest.send(event.reply(b"{}\0")))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Ends, Port, trio.Nursery]]:
    """A guest's port that runs at `guest` in a folder; the nursery ends with it."""
    with opened(folder / "guest") as (ends, port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            yield ends, port, nursery
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[tuple[Ends, Port, trio.Nursery, trio.SocketStream]]:
    """A running port, as `running` makes it, and a guest's connection to it."""
    async with running(folder) as (ends, port, nursery):
        stream = await trio.open_unix_socket(folder / "guest")
        yield ends, port, nursery, stream
        nursery.cancel_scope.cancel()
    await stream.aclose()
