"""QMP with a real QEMU."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.trio_help import run_in_real_time
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.child import spawn
from vhostcomm.qemu.qmp import (
    Qmp,
    QmpClosedError,
    QmpCommandError,
    QmpError,
    QmpTimeoutError,
    connect,
)


def with_qemu(can: Capabilities, folder: Path, body: Callable[[str], Awaitable[None]]) -> None:
    path = str(folder / "qmp")
    arguments = ["-machine", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on"]

    async def main() -> None:
        async with spawn([*can.program.command, *arguments]) as child, trio.open_nursery() as nursery:
            # With wait=on, QEMU prints that it listens and waits for a client.
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
        first, second = Qmp(await connect(path)), Qmp(await connect(path), greeting_timeout=0.2)
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


def test_connecting_without_a_listener_fails(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="No such file or directory; no QEMU listens there"):
        run_in_real_time(connect, str(tmp_path / "none"))
