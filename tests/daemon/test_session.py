"""One connection, on a clock that jumps."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from tests.trio_help import run
from vchannel import FRAME_SIZE, NEED_DATA, Connection, HostCommand, Request, Response, Role
from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.session import Session
from vhostcomm.channel.throttle import Lane, Throttle
from vhostcomm.config.address import Connect, Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.config.models import Service
from vhostcomm.errors import ServeError
from vhostcomm.guest.events import Gone
from vhostcomm.guest.model import State

SERIAL = Request.of(HostCommand.GUEST_SERIAL)


class Ends:
    """A session, the guest's end of its socket, and what was logged."""

    def __init__(self, service: Service, lane: Lane | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ours = ours
        ours.setblocking(False)
        self.sock.setblocking(False)
        self.guest = Guest(
            "nas",
            Listen(Path("/nowhere")),
            HostIdentity(cluster_uuid="c"),
            GuestIdentity(uuid="u"),
            self._log(),
        )
        self.throttle = Throttle(service.frame_rate, Lane() if lane is None else lane) if service.frame_rate else None
        self.session = Session(self.guest, ours, service, self.throttle)
        self.connection = Connection(Role.GUEST)
        self.ended: Gone | None = None
        self.end = trio.Event()

    def _log(self) -> Any:
        def take(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
            self.lines.append(dict(event) | {"level": level})
            raise structlog.DropEvent

        return structlog.wrap_logger(
            structlog.PrintLogger(), processors=[take], wrapper_class=structlog.make_filtering_bound_logger(20)
        ).bind()

    def logged(self, what: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == what]

    async def run(self) -> None:
        self.guest.connected()
        self.ended = await self.session.run()
        self.guest.gone(self.ended)
        self.end.set()

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self.sock)
            view = view[self.sock.send(view) :]

    async def answers(self, count: int) -> list[Response]:
        found: list[Response] = []
        while len(found) < count:
            await trio.lowlevel.wait_readable(self.sock)
            self.connection.receive_data(self.sock.recv(1 << 20))
            while (event := self.connection.next_event()) is not NEED_DATA:
                assert not hasattr(event, "refusal"), "the daemon's stream is out of step"
                if isinstance(event, Response):
                    found.append(event)
        return found

    def fill(self) -> None:
        """Fill the socket, so that no answer fits."""
        with suppress(BlockingIOError):
            while True:
                self.ours.send(bytes(65536))

    def close(self) -> None:
        """Close both ends of a session that has not run."""
        self.sock.close()
        self.ours.close()

    def ask(self, count: int = 1) -> bytes:
        return b"".join(self.connection.send(Request.of(HostCommand.GUEST_SERIAL)) for _ in range(count))


@asynccontextmanager
async def serving(lane: Lane | None = None, **service: Any) -> AsyncIterator[Ends]:
    ends = Ends(Service(**service), lane)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        try:
            yield ends
        finally:
            ends.sock.close()
            nursery.cancel_scope.cancel()


def test_half_a_frame_is_dropped_after_silence() -> None:
    async def main() -> None:
        async with serving() as ends:
            await ends.write(ends.ask()[:2048])
            await trio.sleep(1.5)
            assert [line["bytes"] for line in ends.logged("half a frame dropped")] == [2048]
            await ends.write(ends.ask())
            await ends.answers(1)

    run(main)


def test_a_slow_frame_is_not_dropped() -> None:
    """Silence counts from the last byte, not from the first."""

    async def main() -> None:
        async with serving() as ends:
            frame = ends.ask()
            for place in range(0, FRAME_SIZE, 512):
                await ends.write(frame[place : place + 512])
                await trio.sleep(0.9)
            await ends.answers(1)
            assert not ends.logged("half a frame dropped")

    run(main)


def test_over_its_rate_a_guest_is_read_slowly_and_never_dropped() -> None:
    async def main() -> None:
        async with serving(frame_rate=10) as ends, trio.open_nursery() as nursery:
            begin = trio.current_time()
            nursery.start_soon(ends.write, ends.ask(120))
            await ends.answers(120)
            # A burst of two seconds' worth is free; reads take up to 16 frames at once.
            assert 120 / 10 - 2 - 1.6 <= trio.current_time() - begin <= 120 / 10
            assert ends.ended is None
            assert [line["times"] for line in ends.logged("guest sends too fast, reading more slowly")] == [1]
            assert ends.guest.throttled > 0
            # After a quiet while, a burst is free again.
            await trio.sleep(100)
            begin = trio.current_time()
            await ends.write(ends.ask(15))
            await ends.answers(15)
            assert trio.current_time() - begin < 1

    run(main)


def test_junk_counts_towards_the_rate() -> None:
    async def main() -> None:
        async with serving(frame_rate=10) as ends:
            begin = trio.current_time()
            await ends.write(b"\xa5" * FRAME_SIZE * 100 + ends.ask())
            await ends.answers(1)
            assert trio.current_time() - begin > 5

    run(main)


def test_a_flood_does_not_hold_up_others() -> None:
    """While one guest sends without end, another's questions are answered between its turns."""

    async def main() -> None:
        turns = 0

        async def flood(ends: Ends) -> None:
            nonlocal turns
            junk = b"\xa5" * 65536
            while True:
                await ends.write(junk)
                turns += 1

        async with serving(frame_rate=0) as bad, serving() as good, trio.open_nursery() as nursery:
            nursery.start_soon(flood, bad)
            while turns < 3:
                await trio.lowlevel.checkpoint()
            waited = []
            for _ in range(100):
                before = turns
                await good.write(good.ask())
                await good.answers(1)
                waited.append(turns - before)
            nursery.cancel_scope.cancel()
            assert max(waited) <= 5, "an answer took many of the flood's turns"

    run(main)


def test_answers_that_nobody_reads_are_dropped_whole() -> None:
    """After the deadline, the daemon keeps serving. A guest that reads again finds only whole frames."""

    async def main() -> None:
        async with serving(send_timeout=5, frame_rate=0) as ends, trio.open_nursery() as nursery:
            asked = 400
            begin = trio.current_time()
            nursery.start_soon(ends.write, ends.ask(asked))
            with trio.fail_after(1000):
                while ends.guest.dropped_answers == 0:  # noqa: ASYNC110 - the guest's counts are no events
                    await trio.sleep(1)
            assert trio.current_time() - begin >= 5
            assert ends.logged("guest does not read, dropping answers")
            assert ends.ended is None
            found = []
            with trio.move_on_after(100):
                while True:
                    found += await ends.answers(1)  # asserts that every frame is in step
            assert len(found) + ends.guest.dropped_answers == asked
            await ends.write(ends.ask())
            await ends.answers(1)

    run(main)


def test_draining_answers_pending_questions() -> None:
    async def main() -> None:
        async with serving() as ends:
            await trio.testing.wait_all_tasks_blocked()
            ends.session.drain()
            for _ in range(10):  # QEMU sends the frames that it had queued
                await ends.write(ends.ask())
                await ends.answers(1)
            with trio.fail_after(1):
                await ends.end.wait()
            assert ends.ended
            assert ends.ended.by_us

    run(main)


def test_draining_has_an_end() -> None:
    async def main() -> None:
        async with serving(drain_timeout=3) as ends, trio.open_nursery() as nursery:

            async def chatter() -> None:
                with suppress(BrokenPipeError, ConnectionResetError):
                    while True:
                        await ends.write(ends.ask())
                        await trio.sleep(0.01)

            nursery.start_soon(chatter)
            await trio.sleep(1)
            begin = trio.current_time()
            ends.session.drain()
            await ends.end.wait()
            assert 2.9 < trio.current_time() - begin < 4

    run(main)


def test_half_a_frame_at_the_end_counts_as_skipped() -> None:
    async def main() -> None:
        async with serving() as ends:
            await ends.write(ends.ask()[:100])
            ends.sock.close()
            await ends.end.wait()
            assert ends.ended == Gone("QEMU closed the connection")
            assert ends.guest.skipped_bytes == 100
            assert ends.guest.state is State.ABSENT

    run(main)


def test_qemus_socket_is_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for a missing socket, and for one that closes each connection."""

    def tries(*, accepts: bool) -> list[float]:
        tried: list[float] = []

        async def connect(path: Path) -> socket.socket:
            tried.append(trio.current_time())
            if not accepts:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            theirs.close()
            ours.setblocking(False)
            return ours

        async def main() -> None:
            ends = Ends(Service())
            ends.guest.address = Connect(Path("/run/qemu/nas"))
            port = Port(ends.guest, Service())
            port.open()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.run)
                await trio.sleep(60)
                port.stop()
            ends.close()

        monkeypatch.setattr("vhostcomm.channel.port.connect", connect)
        run(main)
        return tried

    for accepts in (False, True):
        tried = tries(accepts=accepts)
        gaps = [after - before for before, after in pairwise(tried)]
        wanted = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0][accepts:]
        assert gaps[: len(wanted)] == pytest.approx(wanted, rel=0.15), accepts
        assert max(gaps) <= 5.5


def test_a_shortage_of_descriptors_causes_no_busy_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither of a connection, nor of the listener that was closed to free one."""
    tried: list[float] = []

    def short() -> None:
        assert len(tried) < 20, "a busy loop"
        tried.append(trio.current_time())

    def accept(_: socket.socket) -> tuple[socket.socket, str]:
        short()
        raise OSError(errno.EMFILE, "Too many open files")

    async def bind_again(_: Port) -> None:
        short()
        raise ServeError("Too many open files")

    async def main() -> None:
        ends = Ends(Service())
        ends.guest.address = Listen(tmp_path / "guest")
        port = Port(ends.guest, Service())
        port.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            with monkeypatch.context() as changed:
                changed.setattr(socket.socket, "accept", accept)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                await trio.sleep(1.1)
            assert [after - before for before, after in pairwise(tried)] == pytest.approx([0.2] * 5)
            tried.clear()
            monkeypatch.setattr("vhostcomm.channel.port._scarce", lambda: 0)
            monkeypatch.setattr(Port, "bind_again", bind_again)
            await stream.send_all(ends.ask())
            assert await stream.receive_some(FRAME_SIZE)
            await stream.aclose()
            await trio.sleep(1.1)
            assert [after - before for before, after in pairwise(tried)] == pytest.approx([0.2] * 5)
            port.stop()
        assert len(ends.logged("connection waits for a descriptor or memory")) == 2
        ends.close()

    run(main)


def test_an_internal_error_ends_one_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The port logs it, and serves the next connection."""

    async def main() -> None:
        ends = Ends(Service())
        ends.guest.address = Listen(tmp_path / "guest")
        port = Port(ends.guest, Service())
        port.open()
        real = Guest.request
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            for broken in (True, False):
                monkeypatch.setattr(Guest, "request", _fail if broken else real)
                stream = await trio.open_unix_socket(tmp_path / "guest")
                await stream.send_all(ends.ask())
                assert bool(await stream.receive_some(FRAME_SIZE)) is not broken
                await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            port.stop()
        assert len(ends.logged("internal error, closing the connection; please report it")) == 1
        assert not any(tmp_path.iterdir())
        ends.close()

    run(main)


def _fail(*_: object) -> None:
    raise ZeroDivisionError("a bug")


def test_pauses_between_connections_to_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """They double while QEMU closes each connection at once, and are short again after a connection that lasted."""
    send, connected = trio.open_memory_channel[tuple[float, socket.socket]](1)

    async def connect(_: object) -> socket.socket:
        ours, its = socket.socketpair()
        ours.setblocking(False)
        send.send_nowait((trio.current_time(), its))
        return ours

    monkeypatch.setattr("vhostcomm.channel.port.connect", connect)

    async def main() -> None:
        ends = Ends(Service())
        ends.guest.address = Connect(tmp_path / "guest")
        port = Port(ends.guest, Service())
        port.open()
        pauses = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            _, qemu = await connected.receive()
            for lasts in (0, 0, 0, 6, 0):
                await trio.sleep(lasts)
                qemu.close()
                closed = trio.current_time()
                began, qemu = await connected.receive()
                pauses.append(began - closed)
            port.stop()
            qemu.close()
        assert pauses == pytest.approx([0.2, 0.4, 0.8, 0.1, 0.2])
        ends.close()

    run(main)
