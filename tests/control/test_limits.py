"""What clients of the control surface can leave open, without an effect on guests or other clients."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.controlled import answering, client, controlled, post
from tests.serving import Serving, fake_guest, until
from vchannel import GuestCommand
from vhostcomm.channel.calls import OUTSTANDING_LIMIT
from vhostcomm.control.events import STREAM_LIMIT
from vhostcomm.control.server import CONNECTION_LIMIT

POWEROFF = GuestCommand.POWEROFF

UNFINISHED = b"POST /guests/nas/shutdown HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nx: ", UNFINISHED], ids=["silent", "head", "body"])
def test_unfinished_requests_make_room(tmp_path: Path, data: bytes) -> None:
    """Unfinished requests don't prevent a shutdown by another client."""
    with (
        controlled(tmp_path) as (_, http),
        answering(tmp_path / "nas", {POWEROFF: b""}) as guest,
        ExitStack() as held,
    ):
        assert http.get("/guests").status_code == 200
        for _ in range(CONNECTION_LIMIT + 12):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(tmp_path / "control"))
            sock.sendall(data)
        assert post(http, "/guests/nas/shutdown")[0] == 200
        assert guest.asked == [POWEROFF]


def test_streams_have_a_limit(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http):
        lines = []
        with ExitStack() as held:
            for _ in range(STREAM_LIMIT):
                stream = held.enter_context(client(tmp_path / "control"))
                response = held.enter_context(stream.stream("GET", "/events"))
                assert response.status_code == 200
                lines.append(response.iter_lines())  # an iterator that isn't kept closes its stream
                assert next(lines[-1]).startswith(":")
            refused = http.get("/events")
            assert (refused.status_code, refused.json()["error"]["what"]) == (429, "busy")
            assert http.get("/guests").status_code == 200

        def again() -> bool:
            with http.stream("GET", "/events") as response:
                return response.status_code == 200

        until(again, "a stream")


def test_streams_that_begin_at_once_have_the_same_limit(tmp_path: Path) -> None:
    """Each one is checked and counted in one step."""
    with controlled(tmp_path) as (_, http), ExitStack() as held:
        assert http.get("/guests").status_code == 200
        socks = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2 * STREAM_LIMIT)]
        for sock in socks:
            sock.connect(str(tmp_path / "control"))
        for sock in socks:
            sock.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        statuses = [sock.recv(12) for sock in socks]
        assert statuses.count(b"HTTP/1.1 200") == statuses.count(b"HTTP/1.1 429") == STREAM_LIMIT


def test_streams_that_end_make_room_at_once(tmp_path: Path) -> None:
    """Every other client disconnects while its stream begins."""
    with controlled(tmp_path) as (daemon, http):
        assert http.get("/guests").status_code == 200
        before = descriptors(daemon)
        for wait in (False, True) * STREAM_LIMIT:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "control"))
                sock.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
                if wait:
                    assert sock.recv(1)
        until(lambda: descriptors(daemon) <= before, "the end of the streams")
        with http.stream("GET", "/events") as response:
            assert response.status_code == 200


@pytest.mark.slow
def test_connections_that_end_make_room_at_once(tmp_path: Path) -> None:
    """More clients than the limit, one after another."""
    with controlled(tmp_path):
        for _ in range(2 * CONNECTION_LIMIT):
            with client(tmp_path / "control") as http:
                assert http.get("/guests").status_code == 200


def test_many_first_clients_at_once_are_answered(tmp_path: Path) -> None:
    """The daemon still has to load its HTTP server."""
    with controlled(tmp_path), ThreadPoolExecutor(60) as pool:

        def ask(_: int) -> int:
            with client(tmp_path / "control") as http:
                return http.get("/guests").status_code

        assert set(pool.map(ask, range(60))) == {200}


def test_a_call_ends_with_its_client(tmp_path: Path) -> None:
    """Otherwise a few abandoned calls would leave no room for a shutdown."""
    with controlled(tmp_path) as (_, http), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        body = b'{"command": 77, "timeout": 3600}'
        request = b"POST /guests/nas/call HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        for _ in range(2 * OUTSTANDING_LIMIT):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "control"))
                sock.sendall(request)
                guest.next_request()
        until(lambda: post(http, "/guests/nas/call", command=77, timeout=0.05)[0] == 504, "room")
        assert guest.next_request().command == 77


def test_a_client_that_sends_no_more_is_answered(tmp_path: Path) -> None:
    with controlled(tmp_path), fake_guest(tmp_path / "nas") as guest:
        guest.serial()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "control"))
            sock.sendall(b'POST /guests/nas/call HTTP/1.0\r\ncontent-length: 14\r\n\r\n{"command": 2}')
            sock.shutdown(socket.SHUT_WR)
            guest.sock.sendall(guest.next_request().reply(b"10.0.2.15\0").raw)
            with sock.makefile("rb") as answer:
                assert b"10.0.2.15" in answer.read()


def test_clients_that_ask_for_http_2_get_http_1(tmp_path: Path) -> None:
    """A client that disconnects at once doesn't delay the daemon's end."""
    upgrade = (
        b"GET /guests HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    known = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    with controlled(tmp_path) as (daemon, http):
        assert http.get("/guests").status_code == 200
        before = descriptors(daemon)
        for asked, answer in ((upgrade, b"HTTP/1.1 200 "), (known, b"HTTP/1.1 ")):
            for wait in (True, False, False):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(tmp_path / "control"))
                    sock.sendall(asked)
                    assert not wait or sock.recv(100).startswith(answer)
        until(lambda: descriptors(daemon) <= before, "the end of the connections")
        assert daemon.stop() == 0


@pytest.mark.slow
def test_a_reload_continues_without_its_client(tmp_path: Path) -> None:
    config = tmp_path / "vhostcomm.toml"
    one, two, three = (f'[guests.{name}]\nsock = "{tmp_path / name}"\n' for name in ("one", "two", "three"))
    config.write_text(one + two)
    with (
        Serving("--config", config, "--control", tmp_path / "control") as daemon,
        client(tmp_path / "control") as http,
        fake_guest(tmp_path / "two") as guest,
        ThreadPoolExecutor(1) as pool,
    ):
        guest.serial()
        freezing = pool.submit(post, http, "/guests/two/freeze", timeout=600)
        guest.sock.sendall(guest.next_request().reply(b"").raw)
        assert freezing.result()[0] == 200
        config.write_text(one + three)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "control"))
            sock.sendall(b"POST /reload HTTP/1.1\r\nhost: x\r\n\r\n")
            guest.next_request()  # a thaw, which the guest doesn't answer, so that the reload takes a while
        daemon.event("reloaded")
        assert [each["name"] for each in http.get("/guests").json()["guests"]] == ["one", "three"]


def descriptors(daemon: Serving) -> int:
    return len([*Path(f"/proc/{daemon.process.pid}/fd").iterdir()])
