"""The stream of guests' events, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define, field

from vhostcomm.channel.guest import Guest
from vhostcomm.control import serialize
from vhostcomm.control.backlog import Backlog
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.control.frames import Frames
from vhostcomm.control.problems import Problem
from vhostcomm.guest.events import GuestEvent

STREAM_LIMIT: Final = 32
"""Maximum streams at once."""

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, to detect clients that have disconnected."""


FRAMES_INTERVAL: Final = 0.25
"""Seconds at least between two events with frames: more often, a person sees no difference."""

WATCH_INTERVAL: Final = 1.0
"""Seconds between checks whether a watched guest is still served."""


@define
class Events:
    """The clients that follow events."""

    daemon: DaemonApi
    following: int = field(default=0, init=False)

    async def stream(self, watched: Guest | None = None) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events from now on.

        The frames of the guest `watched` are events too. When it is no longer served, the stream ends.
        """
        backlog, added = Backlog(), trio.Event()
        frames, due = Frames(lambda: added.set()), 0.0  # noqa: PLW0108 - `added` changes

        def add(guest: Guest, event: GuestEvent) -> None:
            backlog.put(guest.name, event.value, _facts(guest, event))
            added.set()

        self.daemon.listeners.append(add)
        if watched:
            watched.traces.append(frames)
        try:
            yield b": what happens to guests, from now on\nretry: 1000\n\n"
            while True:
                added = trio.Event()
                while event := backlog.take():
                    yield _encode(*event)
                if frames and trio.current_time() >= due:
                    due = trio.current_time() + FRAMES_INTERVAL
                    yield _encode("frames", {"guest": watched.name if watched else ""} | frames.take())
                if watched and self.daemon.guests.get(watched.name) is not watched:
                    if watched.name not in self.daemon.guests:
                        yield _encode("removed", {"guest": watched.name})
                    return
                until = due if frames else trio.current_time() + (WATCH_INTERVAL if watched else KEEPALIVE)
                with trio.move_on_at(until) as silence:
                    await added.wait()
                if silence.cancelled_caught and not frames:
                    yield b": nothing happened\n\n"
        finally:
            self.daemon.listeners.remove(add)
            if watched:
                watched.traces.remove(frames)

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


def _facts(guest: Guest, event: GuestEvent) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "guest": guest.name, "event": event.value, "when": serialize.when(time.time()), "state": guest.state.value,
    }  # fmt: skip
    if guest.model.stop:
        facts["stop"] = serialize.stop(guest)
    if event is GuestEvent.GONE and guest.last_end:
        facts["why"] = guest.last_end.why
    if event is GuestEvent.FROZEN:
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
def awaiting(daemon: DaemonApi, name: str, *wanted: GuestEvent) -> Iterator[Awaited]:
    """Watch for a guest's events inside the block."""
    awaited = Awaited()

    def note(guest: Guest, event: GuestEvent) -> None:
        if guest.name == name and event in wanted and not awaited.event:
            awaited.event = event
            awaited.done.set()
            if event is GuestEvent.REBOOTED:
                awaited.rebooted.cancel()

    daemon.listeners.append(note)
    try:
        yield awaited
    finally:
        daemon.listeners.remove(note)
