"""The server under the control surface and under qemu-host's API, on real sockets."""

from __future__ import annotations

import errno
import json
import ssl
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast

import pytest
import structlog
import trio

from tests.trio_help import run
from vhostcomm.config.address import Listen
from vhostcomm.control.api import make_api
from vhostcomm.control.client_log import LOG_INTERVAL, ClientLog
from vhostcomm.control.connection import BODY_LIMIT, BODY_TIMEOUT, HEAD_TIMEOUT, LINGER_LIMIT, Receive, Scope, Send
from vhostcomm.control.listener import HttpListener
from vhostcomm.control.problems import Problem
from vhostcomm.control.server import CONNECTION_LIMIT, RESERVED, serve_app

GET = b"GET /path?a=b HTTP/1.1\r\nhost: x\r\n\r\n"


class Echo:
    """An application that answers with the request's target, or waits for ever; its log and its server."""

    headers = ()

    def __init__(self, where: Path) -> None:
        self.where = where
        self.lines: list[dict[str, Any]] = []
        self.waiting = 0
        self.scopes: list[Scope] = []

    def admit(self, scope: Scope) -> None:
        if scope["path"] == "/refused":
            raise Problem(403, "refused", "it is refused", "nothing")

    def is_urgent(self, scope: Scope) -> bool:
        return bool(scope["path"] == "/urgent")

    def error(self, problem: Problem) -> bytes:
        return f"{problem.what}: {problem.why}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = (await receive())["body"]
        if scope["path"] == "/wait":
            self.waiting += 1
            try:
                await receive()
            finally:
                self.waiting -= 1
        if scope["path"] == "/broken":
            raise ZeroDivisionError
        answer = scope["raw_path"] + b"?" + scope["query_string"] + b" " + body
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    @asynccontextmanager
    async def served(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        def take(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
            self.lines.append(dict(event))
            raise structlog.DropEvent

        wrapper = structlog.make_filtering_bound_logger(20)
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[take], wrapper_class=wrapper).bind()
        with closing(HttpListener(Listen(self.where))) as listener:
            listener.sock.listen(2 * CONNECTION_LIMIT)
            listener.tls = tls
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_app, self, listener, log, ClientLog(log, nursery))
                yield self
                nursery.cancel_scope.cancel()

    async def connect(self, data: bytes = b"") -> trio.SocketStream:
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.connect(str(self.where))
        stream = trio.SocketStream(sock)
        await stream.send_all(data)
        return stream

    async def ask(self, data: bytes) -> bytes:
        """All that is answered until the server closes the connection."""
        async with await self.connect(data) as stream:
            return b"".join([part async for part in stream])


async def until(true: Any) -> None:
    while not true():  # noqa: ASYNC110 - nothing here has an event
        await trio.sleep(0.01)


def test_one_connection_serves_several_requests(tmp_path: Path) -> None:
    """Pipelined, with a body by length and in chunks, and the last one closes the connection."""

    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            answer = await echo.ask(
                GET
                + b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none"
                + b"POST /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
                + b"HEAD /c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
            assert [each in answer for each in (b"/path?a=b ", b"/a? one", b"/b? two", b"/c?")] == [True] * 3 + [False]

    run(main)


def test_http_1_0_without_a_host(tmp_path: Path) -> None:
    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            answer = await echo.ask(b"GET /a HTTP/1.0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n/a? ")

    run(main)


def test_the_absolute_form_of_a_target_is_accepted(tmp_path: Path) -> None:
    """The target's host overrides the header."""

    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            for target, path in ((b"HTTP://Some:80/a%20b?c=d", b"/a%20b?c=d"), (b"http://Some:80?c=d", b"/?c=d")):
                request = b"GET " + target + b" HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n"
                assert (await echo.ask(request)).endswith(path + b" ")
                assert dict(echo.scopes[-1]["headers"])[b"host"] == b"Some:80"
            assert echo.scopes[0]["path"] == "/a b"

    run(main)


def test_requests_that_break_the_protocol_are_rejected(tmp_path: Path) -> None:
    """Each is answered with its status and reason, and closes its connection. Other connections are still served."""
    head = b"POST /a HTTP/1.1\r\nhost: x\r\n"
    refused = {
        b"nonsense\r\n\r\n": b"400 Bad Request",
        b"GET / HTTP/1.1\r\n\r\n": b"400 Bad Request",
        b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\0\r\n\r\n": b"400 Bad Request",
        b"GET / HTTP/2.0\r\n\r\n": b"505 HTTP Version Not Supported",
        b"GET /" + bytes(20_000): b"4",
        head + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": b"400 Bad Request",
        head + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab": b"400 Bad Request",
        head + b"content-length: %d\r\n\r\n" % (BODY_LIMIT + 1) + bytes(BODY_LIMIT + 1): b"413 ",
        b"GET /refused HTTP/1.1\r\nhost: x\r\n\r\n": b"403 Forbidden",
        b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\n": b"500 Internal Server Error",
    }

    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            for request, status in refused.items():
                answer = await echo.ask(request + GET)
                assert answer.startswith(b"HTTP/1.1 " + status), request[:40]
                assert answer.count(b"HTTP/1.1") == 1, "the bytes after it are not read as a request"
                assert b"secret" not in answer
            assert {each["path"] for each in echo.scopes} == {"/broken"}

    run(main)


def test_heads_and_bodies_have_deadlines(tmp_path: Path) -> None:
    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            head = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
            for request, seconds, status in (
                (b"", HEAD_TIMEOUT, b""),
                (b"GET / HTTP/1.1\r\nx: ", HEAD_TIMEOUT, b"HTTP/1.1 408 Request Timeout"),
                (head + b"12345678", BODY_TIMEOUT, b"HTTP/1.1 408 Request Timeout"),
            ):
                began = trio.current_time()
                answer = await echo.ask(request)
                assert answer[: len(status) or 1] == status
                assert seconds <= trio.current_time() - began < seconds + 1  # on the test's own clock
            assert not echo.scopes

    run(main)


def test_silent_and_unfinished_clients_make_room(tmp_path: Path) -> None:
    """However many there are, the next client is answered, and those that wait for an answer get it."""
    unfinished = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1"

    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            held = [await echo.connect(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")]
            await until(lambda: echo.waiting)
            for data in (b"", unfinished):
                for _ in range(CONNECTION_LIMIT + 12):
                    held.append(await echo.connect(data))
                    await trio.testing.wait_all_tasks_blocked()
                assert b"200 OK" in await echo.ask(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            assert echo.waiting == 1
            for each in held:
                await each.aclose()

    run(main)


def test_slots_are_reserved_for_urgent_requests(tmp_path: Path) -> None:
    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo:
            wait = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"
            held = [await echo.connect(wait) for _ in range(CONNECTION_LIMIT - RESERVED)]
            await until(lambda: echo.waiting == CONNECTION_LIMIT - RESERVED)
            assert (await echo.ask(GET)).startswith(b"HTTP/1.1 503 Service Unavailable")
            urgent = await echo.ask(b"POST /urgent HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert urgent.startswith(b"HTTP/1.1 200 OK")
            for each in held:
                await each.aclose()
            await until(lambda: not echo.waiting)
            assert b"200 OK" in await echo.ask(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    run(main)


def test_an_answer_reaches_a_client_that_still_sends(tmp_path: Path) -> None:
    """For example, the server rejects a request for its first line while the client still sends the rest."""

    async def main() -> None:
        async with (
            Echo(tmp_path / "http").served() as echo,
            await echo.connect() as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(client.send_all, b"nonsense\r\n" + bytes(900_000))  # more than a socket holds
            assert (await client.receive_some()).startswith(b"HTTP/1.1 431 ")

    run(main)


def test_a_client_that_sends_for_ever_is_not_read_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with Echo(tmp_path / "http").served() as echo, await echo.connect(b"nonsense\r\n\r\n") as client:
            sent = 0
            try:
                while True:
                    await client.send_all(bytes(65536))
                    sent += 65536
            except trio.BrokenResourceError:
                pass
            assert sent <= LINGER_LIMIT + (1 << 20)  # what is read, and what the sockets hold

    run(main)


def test_a_shortage_of_descriptors_causes_no_busy_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[float] = []

    async def accept(_: trio.SocketListener) -> trio.SocketStream:
        assert len(tried) < 20, "a busy loop"
        tried.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        with monkeypatch.context() as changed:
            changed.setattr(trio.SocketListener, "accept", accept)
            async with Echo(tmp_path / "http").served() as echo:
                await trio.sleep(1.1)
                changed.undo()
                assert b"200 OK" in await echo.ask(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert [after - before for before, after in pairwise(tried)] == pytest.approx([0.2] * 5)
        waits = ("control connection waits", "Too many open files")
        assert [(each["event"], each["why"], each["times"]) for each in echo.lines] == [(*waits, 1), (*waits, 5)]

    run(main)


def test_a_bug_in_the_api_fails_only_its_request(tmp_path: Path) -> None:
    """It is answered with status 500 and logged with its path; the connection serves the next request."""

    class Api(Echo):
        app = staticmethod(make_api(cast("Any", object())))

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    async def main() -> None:
        async with Api(tmp_path / "socket").served() as api:
            first = b"GET /config HTTP/1.1\r\nhost: x\r\n\r\n"
            found = await api.ask(first + b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            bug, missing = found.split(b"HTTP/1.1 ")[1:]
            assert bug.startswith(b"500 ")
            assert json.loads(bug.partition(b"\r\n\r\n")[2])["error"]["what"] == "internal error"
            assert missing.startswith(b"404 ")
            (line,) = api.lines
            assert (line["event"], line["path"]) == (
                "internal error in answering a request; please report it",
                "/config",
            )

    run(main)


def test_rejected_clients_are_logged_once_a_minute() -> None:
    lines: list[dict[str, Any]] = []

    def take(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        lines.append(dict(event))
        raise structlog.DropEvent

    async def main() -> None:
        wrapper = structlog.make_filtering_bound_logger(20)
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[take], wrapper_class=wrapper).bind()
        async with trio.open_nursery() as nursery:
            client_log = ClientLog(log, nursery)
            for number in range(1000):
                client_log.warning("refused", by=number)
            await trio.sleep(1.5 * LOG_INTERVAL)
            assert lines == [{"event": "refused", "times": 1, "by": 0}, {"event": "refused", "times": 999, "by": 999}]
            await trio.sleep(2 * LOG_INTERVAL)
            client_log.warning("refused", by="anew")
            assert lines[2:] == [{"event": "refused", "times": 1, "by": "anew"}]
            client_log.warning("refused", by="at the end")
            nursery.cancel_scope.cancel()
        assert lines[3:] == [{"event": "refused", "times": 1, "by": "at the end"}]

    run(main)
