"""Scripted QMP servers in the place of QEMU, on a mock clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing

from tests.trio_help import run
from vhostcomm.qemu.qmp import (
    Qmp,
)

GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}, "capabilities": []}
}


class Peer:
    """QEMU's end of the connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def say(self, *messages: Any) -> None:
        await self.stream.send_all(b"".join(json.dumps(each).encode() + b"\r\n" for each in messages))

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            piece = await self.stream.receive_some()
            assert piece, "the client closed the connection"
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    async def greet(self) -> None:
        await self.say(GREETING)
        heard = await self.hear()
        assert heard["execute"] == "qmp_capabilities"
        await self.say({"return": {}, "id": heard["id"]})

    async def answer(self, value: Any) -> dict[str, Any]:
        heard = await self.hear()
        await self.say({"return": value, "id": heard["id"]})
        return heard


Script = Callable[[Peer], Awaitable[None]]
Body = Callable[[Qmp], Awaitable[None]]


def play(script: Script, body: Body, *, greet: bool = True) -> None:
    """Run `script` as QEMU and `body` as QMP client."""

    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer, qmp = Peer(theirs), Qmp(ours)
        played = trio.Event()

        async def as_qemu() -> None:
            if greet:
                await peer.greet()
            await script(peer)
            played.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(as_qemu)
            await nursery.start(qmp.run)
            await body(qmp)
            await played.wait()
            nursery.cancel_scope.cancel()

    run(main)
