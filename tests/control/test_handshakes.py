"""The limits of clients that have not shown a certificate yet."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from trio.testing import MockClock

from tests.control.authority import Authority, TlsFiles
from tests.control.test_server import GET, Echo
from tests.trio_help import run, run_in_real_time
from vhostcomm.config.certificates import client_context, server_context
from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.problems import Problem
from vhostcomm.control.tls import ACCEPT_COST, CREDIT, HANDSHAKE_LIMIT, HANDSHAKE_TIMEOUT, REST, Handshakes, Share


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority.new(tmp_path / "own").host("one", "one.example")


def test_handshakes_use_a_share_of_the_time() -> None:
    """Rest follows work beyond the credit. Each step runs in another thread."""
    threads = set()

    def work() -> None:
        threads.add(threading.get_ident())
        end = thread_time() + CREDIT / 2
        while thread_time() < end:
            pass

    async def main() -> None:
        share, began = Share(), trio.current_time()
        for _ in range(4):
            await share.take(work)
        assert trio.current_time() - began >= CREDIT / 2 * REST
        await share.rested()
        assert trio.current_time() - began >= CREDIT * REST

    run_in_real_time(main)
    assert threading.get_ident() not in threads


def test_handshake_has_a_deadline(files: TlsFiles) -> None:
    """This holds for a client that sends nothing, and for one that stops in the middle."""

    async def main(sent: bytes) -> None:
        lines: list[dict[str, Any]] = []

        def take(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
            lines.append(dict(line))
            raise structlog.DropEvent

        log = structlog.wrap_logger(None, [take])
        ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
        async with trio.open_nursery() as nursery:
            handshakes, ended = Handshakes(ClientLog(log, nursery), _body), trio.Event()

            async def finish() -> None:
                assert await handshakes.finish(trio.SocketStream(ours), server_context(*files)) is None
                ended.set()

            await theirs.send(sent)
            with theirs:
                nursery.start_soon(finish)
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(HANDSHAKE_TIMEOUT - 0.1)
                await trio.testing.wait_all_tasks_blocked()
                assert not ended.is_set()
                clock.jump(0.2)
                await ended.wait()
                assert await theirs.recv(1) == b""
            assert [line["why"] for line in lines] == [f"no certificate within {HANDSHAKE_TIMEOUT:g} s"]
            nursery.cancel_scope.cancel()

    for sent in b"", b"\x16\x03\x01\x02\x00\x01":
        clock = MockClock()
        run_in_real_time(main, sent, clock=clock)


@pytest.mark.slow
def test_unfinished_handshakes_keep_no_client_out(tmp_path: Path, files: TlsFiles) -> None:
    """Twice as many clients as may be unfinished send a ClientHello and nothing more, again and again."""

    async def main() -> None:
        evicted, are_many = 0, trio.Event()

        async def stall() -> None:
            nonlocal evicted
            while True:
                hello = Hello(files)
                async with await echo.connect(hello.sent) as stream:
                    await hello.is_evicted(stream)
                evicted += 1
                if evicted == 2 * HANDSHAKE_LIMIT:
                    are_many.set()

        async with Echo(tmp_path / "http").served(server_context(*files)) as echo, trio.open_nursery() as nursery:
            for _ in range(2 * HANDSHAKE_LIMIT):
                nursery.start_soon(stall)
            await are_many.wait()
            hello = Hello(files)
            assert await hello.finish(await echo.connect(hello.sent)) == b"HTTP/1.1 200 OK"
            nursery.cancel_scope.cancel()

    run_in_real_time(main, limit=110.0)


@pytest.mark.slow
def test_every_client_of_a_burst_is_answered(tmp_path: Path, files: TlsFiles) -> None:
    """More clients than may be unfinished wait in the kernel before the server accepts the first."""

    async def main() -> None:
        answers = []

        async def finish(hello: Hello, stream: trio.SocketStream) -> None:
            answers.append(await hello.finish(stream))

        async with Echo(tmp_path / "http").served(server_context(*files)) as echo, trio.open_nursery() as nursery:
            waiting = []
            for _ in range(HANDSHAKE_LIMIT + 16):
                hello = Hello(files)
                waiting.append((hello, _connected(echo, hello.sent)))
            for each in waiting:
                nursery.start_soon(finish, *each)
        assert answers == [b"HTTP/1.1 200 OK"] * len(waiting)

    run_in_real_time(main, limit=110.0)


def test_silent_clients_are_accepted_slowly(files: TlsFiles) -> None:
    """Silent clients need no step, so their acceptance costs rest. Otherwise they would evict a distant client."""
    beyond = 10

    async def main() -> None:
        context = server_context(*files)
        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                handshakes = Handshakes(ClientLog(structlog.get_logger(), nursery), _body)
                for _ in range(round(CREDIT / ACCEPT_COST) + beyond):
                    ours, theirs = socket.socketpair()
                    stack.enter_context(theirs)
                    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                    nursery.start_soon(handshakes.finish, stream, context)
                began = trio.current_time()
                await trio.testing.wait_all_tasks_blocked()
                await handshakes.rested()
                assert trio.current_time() - began >= (beyond - 1) * ACCEPT_COST * (1 + REST)
                nursery.cancel_scope.cancel()

    run(main)


def test_steps_need_no_thread_of_other_tasks() -> None:
    """Threads that hang in a file system may occupy all of trio's default limiter."""

    async def main() -> None:
        default = trio.to_thread.current_default_thread_limiter()
        for _ in range(int(default.total_tokens)):
            default.acquire_on_behalf_of_nowait(object())
        assert await Share().take(lambda: "done") == "done"

    run_in_real_time(main)


class Hello:
    """A client with a certificate that has made its ClientHello."""

    def __init__(self, files: TlsFiles) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(*files)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="one.example")
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.sent = self._outgoing.read()

    async def is_evicted(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    async def finish(self, stream: trio.SocketStream) -> bytes:
        """Finish the handshake, ask, and return the first bytes of the answer; none if the connection was closed."""
        async with stream:
            try:
                await self._received(stream, self._tls.do_handshake)
                self._tls.write(GET)
                return bytes(await self._received(stream, lambda: self._tls.read(15)))
            except (trio.BrokenResourceError, ssl.SSLEOFError):
                return b""

    async def _received(self, stream: trio.SocketStream, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                await stream.send_all(self._outgoing.read())
            if data := await stream.receive_some():
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def _connected(echo: Echo, sent: bytes) -> trio.SocketStream:
    """Connect without a checkpoint, so that the server accepts nothing meanwhile."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(echo.where))
    sock.sendall(sent)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def _body(problem: Problem) -> bytes:
    return f"{problem.what}: {problem.why}".encode()
