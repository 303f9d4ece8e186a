"""The balloon of a real QEMU. Its guest has no balloon driver, so the guest keeps its memory."""

from __future__ import annotations

import pytest

from tests.qemu.running import SHORT, Run, supervise
from vhostcomm.errors import MachineError
from vhostcomm.qemu.balloon import SIZE_MIN, balloon
from vhostcomm.qemu.ending import EndKind
from vhostcomm.qemu.supervise import Started


def test_balloon_is_read_and_its_target_set(idle: list[str]) -> None:
    async def body(run: Run) -> None:
        await run.notice(Started)
        has = await balloon(run.qemu.command, None)
        assert has.actual == has.memory
        assert await balloon(run.qemu.command, has.memory) == has
        for size in (min(SIZE_MIN, has.memory) - 1, has.memory + 1):
            with pytest.raises(MachineError, match=f"{size} bytes; the guest has {has.memory >> 20} MiB, and keeps"):
                await balloon(run.qemu.command, size)
        await run.qemu.stop(grace=SHORT)

    ending, _ = supervise(idle, body)
    assert ending.kind is EndKind.STOPPED


def test_a_machine_without_a_balloon(idle: list[str]) -> None:
    place = next(number for number, word in enumerate(idle) if word.startswith("virtio-balloon-pci"))
    without = idle[: place - 1] + idle[place + 1 :]

    async def body(run: Run) -> None:
        await run.notice(Started)
        with pytest.raises(MachineError, match="No balloon device") as found:
            await balloon(run.qemu.command, None)
        assert found.value.what == "no balloon"
        await run.qemu.stop(grace=SHORT)

    supervise(without, body)
