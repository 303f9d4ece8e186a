"""The stream of events: what happens to guests, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

import trio
from attrs import define, field

from vhostcomm.channel.guest import Guest
from vhostcomm.control import view
from vhostcomm.control.host import Host
from vhostcomm.control.problems import Problem

BACKLOG: Final = 256
"""Events kept for a client that reads slowly; what is more it loses, and is told how many."""

STREAM_LIMIT: Final = 32
"""Streams at once."""

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent: it finds out clients that are gone."""


@define
class Lost:
    """How many events a client was too slow for."""

    count: int = 0


@define
class Events:
    """Those who follow what happens."""

    host: Host
    following: int = field(default=0, init=False)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events from now on."""
        send, receive = trio.open_memory_channel[bytes](BACKLOG)
        lost = Lost()

        def tell(guest: Guest, what: str) -> None:
            try:
                send.send_nowait(_event(guest, what))
            except trio.WouldBlock:
                lost.count += 1

        self.host.listeners.append(tell)
        try:
            yield b": what happens to guests, from now on\n\n"
            while True:
                event = b": nothing happened\n\n"
                with trio.move_on_after(KEEPALIVE):
                    event = await receive.receive()
                yield event
                if lost.count and not receive.statistics().current_buffer_used:
                    count, lost.count = lost.count, 0
                    yield _encode("lost", {"count": count})
        finally:
            self.host.listeners.remove(tell)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for streams.

        Raises:
            Problem: there is none.
        """
        if self.following >= STREAM_LIMIT:
            raise Problem(429, "busy", f"{STREAM_LIMIT} streams of events are open", "close one of them")
        self.following += 1
        try:
            yield
        finally:
            self.following -= 1


def _event(guest: Guest, what: str) -> bytes:
    return _encode(what, {"guest": guest.name, "event": what, "when": view.when(time.time())} | _facts(guest, what))


def _facts(guest: Guest, what: str) -> dict[str, object]:
    facts: dict[str, object] = {"state": guest.state.value}
    if guest.stop:
        facts["stop"] = view.stop(guest)
    if what == "gone":
        facts["why"] = guest.gone_why
    if what == "frozen":
        facts["until"] = view.when(guest.frozen_until)
    return facts


def _encode(name: str, value: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


@define
class Awaited:
    """The first of some things that happens to a guest."""

    what: str = ""
    done: trio.Event = field(factory=trio.Event)


@contextmanager
def awaiting(host: Host, name: str, *wanted: str) -> Iterator[Awaited]:
    """Watch for what happens to a guest meanwhile."""
    awaited = Awaited()

    def tell(guest: Guest, what: str) -> None:
        if guest.name == name and what in wanted and not awaited.what:
            awaited.what = what
            awaited.done.set()

    host.listeners.append(tell)
    try:
        yield awaited
    finally:
        host.listeners.remove(tell)
