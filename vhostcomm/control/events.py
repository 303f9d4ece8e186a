"""The stream of events: what happens to guests, as server-sent events."""

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
from vhostcomm.control.problems import Problem

STREAM_LIMIT: Final = 32
"""Streams at once."""

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent: it finds out clients that are gone."""


@define
class Events:
    """Those who follow what happens."""

    daemon: DaemonApi
    following: int = field(default=0, init=False)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events from now on."""
        backlog, added = Backlog(), trio.Event()

        def tell(guest: Guest, what: str) -> None:
            backlog.put(guest.name, what, _facts(guest, what))
            added.set()

        self.daemon.listeners.append(tell)
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
            self.daemon.listeners.remove(tell)

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


def _facts(guest: Guest, what: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "guest": guest.name, "event": what, "when": serialize.when(time.time()), "state": guest.state.value,
    }  # fmt: skip
    if guest.stop:
        facts["stop"] = serialize.stop(guest)
    if what == "gone":
        facts["why"] = guest.gone_why
    if what == "frozen":
        facts["until"] = serialize.when(guest.frozen_until)
    return facts


def _encode(name: str, value: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


@define
class Awaited:
    """The first of some things that happens to a guest."""

    what: str = ""
    done: trio.Event = field(factory=trio.Event)


@contextmanager
def awaiting(daemon: DaemonApi, name: str, *wanted: str) -> Iterator[Awaited]:
    """Watch for what happens to a guest meanwhile."""
    awaited = Awaited()

    def tell(guest: Guest, what: str) -> None:
        if guest.name == name and what in wanted and not awaited.what:
            awaited.what = what
            awaited.done.set()

    daemon.listeners.append(tell)
    try:
        yield awaited
    finally:
        daemon.listeners.remove(tell)
