"""The server under the control surface."""

from __future__ import annotations

import socket

import trio

from tests.trio_help import run
from vhostcomm.control.server import ClientStream


def test_an_answer_reaches_a_client_that_still_sends() -> None:
    """Such as the refusal of a request that is malformed from its first line on."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        server = ClientStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(900_000))  # more than a socket holds
            await server.receive_some(10)
            await server.send_all(b"refused")
            await server.send_eof()
            await server.aclose()
            assert await client.receive_some() == b"refused"

    run(main)


def test_a_client_that_sends_for_ever_is_not_read_for_ever() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        server = ClientStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as client, trio.open_nursery() as nursery:

            async def send() -> None:
                try:
                    while True:
                        await client.send_all(bytes(65536))
                except trio.BrokenResourceError:
                    ended.set()

            ended = trio.Event()
            nursery.start_soon(send)
            await server.aclose()
            await ended.wait()

    run(main)
