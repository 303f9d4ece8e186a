"""The stream of guests' events, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Final, assert_never

import trio
from attrs import define, field

from vhostcomm.channel.guest import Guest
from vhostcomm.control import serialize
from vhostcomm.control.backlog import Backlog
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.control.problems import Problem
from vhostcomm.guest import events
from vhostcomm.guest.events import GuestEvent

STREAM_LIMIT: Final = 32
"""Maximum streams at once."""

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, to detect clients that have disconnected."""


@define
class Events:
    """The clients that follow events."""

    daemon: DaemonApi
    following: int = field(default=0, init=False)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events from now on."""
        backlog, added = Backlog(), trio.Event()

        def add(guest: Guest, event: GuestEvent) -> None:
            backlog.put(guest.name, name_of(event), _facts(guest, event))
            added.set()

        self.daemon.listeners.append(add)
        try:
            yield b": what happens to guests, from now on\n\n"
            while True:
                added = trio.Event()
                while event := backlog.take():
                    yield _encode(*event)
                with trio.move_on_after(KEEPALIVE) as silence:
                    await added.wait()
                if silence.cancelled_caught:
                    yield b": nothing happened\n\n"
        finally:
            self.daemon.listeners.remove(add)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Occupy a place for a stream.

        Raises:
            Problem: no place is free.
        """
        if self.following >= STREAM_LIMIT:
            raise Problem(429, "busy", f"{STREAM_LIMIT} streams of events are open", "close one of them")
        self.following += 1
        try:
            yield
        finally:
            self.following -= 1


def name_of(event: GuestEvent) -> str:
    """Return an event's name in the stream."""
    match event:
        case events.Connected():
            return "connected"
        case events.Ready():
            return "ready"
        case events.Silent():
            return "silent"
        case events.Paused():
            return "paused"
        case events.Resumed():
            return "resumed"
        case events.Rebooted():
            return "rebooted"
        case events.Stopping():
            return "stopping"
        case events.Frozen():
            return "frozen"
        case events.Thawed():
            return "thawed"
        case events.Gone():
            return "gone"
        case _:
            assert_never(event)


def _facts(guest: Guest, event: GuestEvent) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "guest": guest.name, "event": name_of(event), "when": serialize.when(time.time()), "state": guest.state.value,
    }  # fmt: skip
    if guest.stop:
        facts["stop"] = serialize.stop(guest)
    if isinstance(event, events.Gone):
        facts["why"] = event.why
    if isinstance(event, events.Frozen):
        facts["until"] = serialize.when(guest.frozen_until)
    return facts


def _encode(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


@define
class Awaited:
    """The first of some awaited events of a guest."""

    event: GuestEvent | None = None
    done: trio.Event = field(factory=trio.Event)
    rebooted: trio.CancelScope = field(factory=trio.CancelScope)
    """Cancelled if it is a reboot, which loses what was sent to the guest before."""


@contextmanager
def awaiting(daemon: DaemonApi, name: str, *wanted: type[GuestEvent]) -> Iterator[Awaited]:
    """Watch for a guest's events inside the block."""
    awaited = Awaited()

    def note(guest: Guest, event: GuestEvent) -> None:
        if guest.name == name and isinstance(event, wanted) and not awaited.event:
            awaited.event = event
            awaited.done.set()
            if isinstance(event, events.Rebooted):
                awaited.rebooted.cancel()

    daemon.listeners.append(note)
    try:
        yield awaited
    finally:
        daemon.listeners.remove(note)
