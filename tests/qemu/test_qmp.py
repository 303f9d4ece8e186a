"""QMP against peers that play QEMU by script, and against QEMU."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.trio_help import run, run_in_real_time
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.child import spawn
from vhostcomm.qemu.qmp import (
    EVENT_BUFFER,
    LINE_LIMIT,
    Qmp,
    QmpClosedError,
    QmpCommandError,
    QmpError,
    QmpEvent,
    QmpTimeoutError,
    connect,
)

GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}, "capabilities": []}
}


class Peer:
    """The other end: says what it is told to, and hands out what it hears."""

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
    """Run the script as QEMU and the body as its client."""

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


# -- commands


def test_a_command_and_its_reply() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.answer({"running": True})
        assert heard["execute"] == "query-status"
        assert heard["arguments"] == {}

    async def body(qmp: Qmp) -> None:
        assert qmp.version == "7.2.22 (Debian)"
        assert await qmp.execute("query-status") == {"running": True}

    play(script, body)


def test_arguments() -> None:
    async def script(peer: Peer) -> None:
        assert (await peer.answer([]))["arguments"] == {"typename": "x", "cpu-index": 1}

    async def body(qmp: Qmp) -> None:
        assert await qmp.execute("device-list-properties", typename="x", **{"cpu-index": 1}) == []

    play(script, body)


def test_a_refusal_carries_the_command_and_the_reason() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.hear()
        await peer.say({"error": {"class": "DeviceNotFound", "desc": "no x"}, "id": heard["id"]})

    async def body(qmp: Qmp) -> None:
        with pytest.raises(QmpCommandError, match=r"^QMP device_del: no x \(DeviceNotFound\)$") as caught:
            await qmp.execute("device_del", id="x")
        assert (caught.value.command, caught.value.kind, caught.value.description) == (
            "device_del", "DeviceNotFound", "no x",
        )  # fmt: skip

    play(script, body)


def test_replies_find_their_commands_in_any_order() -> None:
    async def script(peer: Peer) -> None:
        heard = [await peer.hear() for _ in range(3)]
        for each in reversed(heard):
            await peer.say({"return": each["execute"], "id": each["id"]})

    async def body(qmp: Qmp) -> None:
        found: dict[str, str] = {}

        async def ask(name: str) -> None:
            found[name] = await qmp.execute(name)

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(ask, name)
        assert found == {"a": "a", "b": "b", "c": "c"}

    play(script, body)


def test_what_it_does_not_know_is_ignored() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.hear()
        await peer.say(
            {"return": 1, "id": 999}, {"return": 2}, {"return": 3, "id": "x"}, {"return": 4, "id": [1]},
            {"error": {"class": "GenericError", "desc": "of nobody"}}, {}, {"event": 5}, {"news": "to come"},
            {"return": "mine", "id": heard["id"], "more": 1},
        )  # fmt: skip

    async def body(qmp: Qmp) -> None:
        assert await qmp.execute("x") == "mine"

    play(script, body)


def test_no_reply_in_time() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.hear()
        await trio.sleep(6)
        await peer.say({"return": "late", "id": heard["id"]})
        await peer.answer("in time")

    async def body(qmp: Qmp) -> None:
        with pytest.raises(QmpTimeoutError, match="QMP x: no reply within 5 s"):
            await qmp.execute("x")
        await trio.sleep(2)
        assert await qmp.execute("y") == "in time", "the late reply is nobody's"

    play(script, body)


def test_a_command_that_is_cancelled_leaves_the_connection_good() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.hear()
        await trio.sleep(2)
        await peer.say({"return": "late", "id": heard["id"]})
        await peer.answer("good")

    async def body(qmp: Qmp) -> None:
        with trio.move_on_after(1) as scope:
            await qmp.execute("x")
        assert scope.cancelled_caught
        assert await qmp.execute("y") == "good"

    play(script, body)


def test_a_command_that_can_not_be_sent_whole_ends_the_connection() -> None:
    """Over a real socket: QEMU stopped reading, and half a command is in its buffer."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        qmp = Qmp(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), patience=0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.greet)
            await nursery.start(qmp.run)
            with pytest.raises(QmpTimeoutError):
                await qmp.execute("x", large="x" * 500_000)
            with pytest.raises(QmpClosedError, match="given up while it was being sent"):
                await qmp.execute("y")
        await peer.stream.aclose()

    run_in_real_time(main)


# -- the end


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (b"", "QEMU closed the QMP connection"),
        (b'{"return": ', "QEMU closed the QMP connection"),
        (b"junk\n", "not a message of QMP: b'junk'"),
        (b"\n", "not a message of QMP: b''"),
        (b"[]\n", "not a message of QMP: b'[]'"),
        (b"\xff\xfe\n", r"not a message of QMP: b'\xff\xfe'"),
        (b"[" * 100_000 + b"\n", "not a message of QMP: b'[[[["),
        (b"x" * (LINE_LIMIT + 1), "a message of more than 1048576 bytes"),
    ],
    ids=["end", "cut off", "junk", "empty", "list", "no text", "deep", "long"],
)
def test_the_end_is_told_to_whoever_waits(last: bytes, why: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.stream.send_all(last)
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        with pytest.raises(QmpClosedError) as caught:
            await qmp.execute("x")
        assert str(caught.value).startswith(f"QMP x: {why}")
        with pytest.raises(QmpClosedError):
            await qmp.execute("y")
        assert [event async for event in qmp.events] == []

    play(script, body)


def test_a_message_may_be_as_long_as_the_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer("x" * (LINE_LIMIT - 100))

    async def body(qmp: Qmp) -> None:
        assert len(await qmp.execute("x")) == LINE_LIMIT - 100

    play(script, body)


def test_before_it_runs() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(QmpClosedError, match=r"await nursery\.start\(qmp\.run\)"):
        run(lambda: Qmp(ours).execute("x"))


# -- the beginning


def beginning(script: Script) -> QmpError:
    """The error of a greeting that goes wrong."""

    async def main() -> QmpError:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script, Peer(theirs))
            with pytest.raises(QmpError) as caught:
                await nursery.start(Qmp(ours).run)
            nursery.cancel_scope.cancel()
        return caught.value

    error: QmpError = run(main)
    return error


def test_no_greeting_in_time() -> None:
    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    error = beginning(script)
    assert isinstance(error, QmpTimeoutError)
    assert str(error) == "no QMP greeting within 5 s; QEMU hangs, or has another QMP client already"


def test_no_reply_to_the_negotiation() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(GREETING)
        await trio.sleep_forever()

    assert isinstance(beginning(script), QmpTimeoutError)


def test_another_protocol() -> None:
    async def script(peer: Peer) -> None:
        await peer.stream.send_all(b'{"hello": 1}\n')

    assert str(beginning(script)) == "what came first is not QMP's greeting"


def test_qemu_ends_before_it_greets() -> None:
    assert isinstance(beginning(lambda peer: peer.stream.aclose()), QmpClosedError)


def test_a_greeting_without_a_version_will_do() -> None:
    async def script(peer: Peer) -> None:
        await peer.say({"QMP": {}})
        heard = await peer.hear()
        await peer.say({"event": "RESUME"}, {"return": {}, "id": heard["id"]})

    async def body(qmp: Qmp) -> None:
        assert qmp.version == "?"

    play(script, body, greet=False)


# -- events


def test_events_come_in_order_and_end_with_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(
            {"event": "RESET", "data": {"guest": True}, "timestamp": {"seconds": 10, "microseconds": 500_000}},
            {"event": "STOP"},
            {"event": "ODD", "data": 5, "timestamp": {"seconds": "x"}},
        )
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        assert [event async for event in qmp.events] == [
            QmpEvent("RESET", {"guest": True}, 10.5), QmpEvent("STOP", {}, 0.0), QmpEvent("ODD", {}, 0.0),
        ]  # fmt: skip

    play(script, body)


def test_events_that_nobody_reads_do_not_hold_replies_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(*[{"event": "E", "data": {"n": n}} for n in range(EVENT_BUFFER + 10)])
        await peer.answer("there")
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        assert await qmp.execute("x") == "there"
        assert qmp.events_dropped == 10
        assert [event.data["n"] async for event in qmp.events] == list(range(EVENT_BUFFER))

    play(script, body)


def test_no_event_is_lost_to_whoever_reads() -> None:
    """A guest that resets in a loop makes hundreds that come in one piece, and SHUTDOWN comes last."""
    many = 10 * EVENT_BUFFER

    async def script(peer: Peer) -> None:
        await peer.say(*[{"event": "E", "data": {"n": n}} for n in range(many)])
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        assert [event.data["n"] async for event in qmp.events] == list(range(many))
        assert qmp.events_dropped == 0

    play(script, body)


# -- QEMU itself


def with_qemu(can: Capabilities, folder: Path, body: Callable[[str], Awaitable[None]]) -> None:
    path = str(folder / "qmp")
    arguments = ["-machine", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on"]

    async def main() -> None:
        async with spawn([*can.program.command, *arguments]) as child, trio.open_nursery() as nursery:
            # With wait=on, QEMU says that it listens and waits for us.
            listening = trio.Event()
            nursery.start_soon(child.read_output, lambda _: listening.set())
            await listening.wait()
            await body(path)
            nursery.cancel_scope.cancel()

    run_in_real_time(main)


@pytest.mark.usefixtures("nothing_left")
def test_qemu_answers(can: Capabilities, tmp_path: Path) -> None:
    async def body(path: str) -> None:
        qmp = Qmp(await connect(path))
        async with trio.open_nursery() as nursery:
            await nursery.start(qmp.run)
            assert qmp.version == can.version
            assert (await qmp.execute("query-status"))["running"] is True
            with pytest.raises(QmpCommandError, match="fly"):
                await qmp.execute("fly")
            with pytest.raises(QmpCommandError):
                await qmp.execute("query-status", unwanted=1)
            await qmp.execute("quit")
            assert [event.name async for event in qmp.events] == ["SHUTDOWN"]
            with pytest.raises(QmpClosedError):
                await qmp.execute("query-status")

    with_qemu(can, tmp_path, body)


@pytest.mark.usefixtures("nothing_left")
def test_a_second_client_gets_no_greeting_until_the_first_leaves(can: Capabilities, tmp_path: Path) -> None:
    async def body(path: str) -> None:
        first, second = Qmp(await connect(path)), Qmp(await connect(path), greeting_patience=0.2)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            with pytest.raises(QmpTimeoutError, match="another QMP client"):
                await nursery.start(second.run)
            nursery.cancel_scope.cancel()
        third = Qmp(await connect(path))
        async with trio.open_nursery() as nursery:
            await nursery.start(third.run)
            assert (await third.execute("query-status"))["running"] is True
            nursery.cancel_scope.cancel()

    with_qemu(can, tmp_path, body)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="No such file or directory; no QEMU listens there"):
        run_in_real_time(connect, str(tmp_path / "none"))
