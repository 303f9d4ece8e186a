"""The start of a QMP connection, and events."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.qemu.peers import GREETING, Peer, Script, play
from tests.trio_help import run
from vhostcomm.qemu.qmp import (
    EVENT_BUFFER,
    Qmp,
    QmpClosedError,
    QmpError,
    QmpEvent,
    QmpTimeoutError,
)

# -- the beginning


def beginning(script: Script) -> QmpError:
    """Return the error of a failed negotiation."""

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
    assert str(error) == "no QMP greeting within 5 s; QEMU hangs, or already has another QMP client"


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


def test_greeting_without_a_version_is_accepted() -> None:
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
            QmpEvent("RESET", {"guest": True}), QmpEvent("STOP", {}), QmpEvent("ODD", {}),
        ]  # fmt: skip

    play(script, body)


def test_unread_events_do_not_delay_replies() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(*[{"event": "E", "data": {"n": n}} for n in range(EVENT_BUFFER + 10)])
        await peer.answer("there")
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        assert await qmp.execute("x") == "there"
        assert [event.data["n"] async for event in qmp.events] == list(range(EVENT_BUFFER))

    play(script, body)


def test_events_beyond_the_buffer_are_not_lost() -> None:
    """A guest that resets in a loop causes hundreds of events in one read, and SHUTDOWN is the last of them."""
    many = 10 * EVENT_BUFFER

    async def script(peer: Peer) -> None:
        await peer.say(*[{"event": "E", "data": {"n": n}} for n in range(many)])
        await peer.stream.aclose()

    async def body(qmp: Qmp) -> None:
        assert [event.data["n"] async for event in qmp.events] == list(range(many))

    play(script, body)
