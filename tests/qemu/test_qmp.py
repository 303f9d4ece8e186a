"""QMP commands, and the end of a connection."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

import vhostcomm.qemu.qmp
from tests.qemu.peers import Peer, play
from tests.trio_help import run, run_in_real_time
from vhostcomm.qemu.qmp import (
    LINE_LIMIT,
    Qmp,
    QmpClosedError,
    QmpCommandError,
    QmpTimeoutError,
)

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


def test_rejected_command_is_named_with_its_reason() -> None:
    async def script(peer: Peer) -> None:
        heard = await peer.hear()
        await peer.say({"error": {"class": "DeviceNotFound", "desc": "no x"}, "id": heard["id"]})

    async def body(qmp: Qmp) -> None:
        with pytest.raises(QmpCommandError, match=r"^QMP device_del: no x \(DeviceNotFound\)$"):
            await qmp.execute("device_del", id="x")

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


def test_unknown_messages_are_ignored() -> None:
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
        assert await qmp.execute("y") == "in time", "the late reply was given to the next command"

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


def test_a_command_that_can_not_be_sent_whole_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU has stopped reading, and the real socket's buffer holds half a command."""
    monkeypatch.setattr(vhostcomm.qemu.qmp, "ANSWER_TIMEOUT", 0.1)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        peer = Peer(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        qmp = Qmp(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.greet)
            await nursery.start(qmp.run)
            with pytest.raises(QmpTimeoutError):
                await qmp.execute("x", large="x" * 500_000)
            with pytest.raises(QmpClosedError, match="cancelled while it was being sent"):
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
def test_waiting_commands_fail_at_the_end(last: bytes, why: str) -> None:
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


def test_commands_fail_before_qmp_runs() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    with pytest.raises(QmpClosedError, match=r"await nursery\.start\(qmp\.run\)"):
        run(lambda: Qmp(ours).execute("x"))
