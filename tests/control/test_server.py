"""The server under the control surface."""

from __future__ import annotations

import socket

import trio

from tests.trio_help import run
from vhostcomm.control.server import LINGER_MOST, ClientStream


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
            sent, ended = 0, trio.Event()

            async def send() -> None:
                nonlocal sent
                try:
                    while True:
                        await client.send_all(bytes(65536))
                        sent += 65536
                except trio.BrokenResourceError:
                    ended.set()

            nursery.start_soon(send)
            await server.aclose()
            await ended.wait()
            assert sent <= LINGER_MOST + (1 << 20)  # what is read, and what the sockets hold

    run(main)
