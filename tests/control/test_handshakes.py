"""The limits of clients that have not shown a certificate yet."""

from __future__ import annotations

import socket
import threading
from collections.abc import MutableMapping
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from trio.testing import MockClock

from tests.control.authority import Authority
from tests.trio_help import run_in_real_time
from vhostcomm.config.certificates import TlsFiles, server_context
from vhostcomm.control.problems import Problem
from vhostcomm.control.server import StrangersLog
from vhostcomm.control.tls import CREDIT, HANDSHAKE_TIMEOUT, REST, Handshakes, Share


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority.new(tmp_path / "own").host("one", "one.example")


def test_handshakes_use_a_share_of_the_time() -> None:
    """Beyond the credit, work costs rest. A step has a thread of its own."""
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
    """Of a client that sends nothing, and of one that stops in the middle."""

    async def main(sent: bytes) -> None:
        lines: list[dict[str, Any]] = []

        def take(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
            lines.append(dict(line))
            raise structlog.DropEvent

        log = structlog.wrap_logger(None, [take])
        ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
        async with trio.open_nursery() as nursery:
            handshakes, ended = Handshakes(StrangersLog(log, nursery), _body), trio.Event()

            async def finish() -> None:
                assert await handshakes.finish(trio.SocketStream(ours), server_context(files)) is None
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


def _body(problem: Problem) -> bytes:
    return str(problem).encode()
