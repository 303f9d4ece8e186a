"""The time that a stop waits for a guest that was never ready, in a real QEMU whose guest does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.qemu.roms import IDLE, rom
from tests.serving import TIMEOUT
from vhostcomm.config.load import load
from vhostcomm.launcher.launcher import Launch, Launcher
from vhostcomm.launcher.power_off import BOOT_TIME, UNHEARD_TIMEOUT
from vhostcomm.log.logs import start_log
from vhostcomm.qemu.argv import build
from vhostcomm.qemu.capabilities import Capabilities
from vhostcomm.qemu.ending import Ending, EndKind
from vhostcomm.qemu.machine import Machine, Vchannel

GRACE = 7200.0


class Stopped:
    """A launcher that is stopped when its QEMU has an age of that many seconds. The clock only moves by jumps."""

    def __init__(self, age: float, can: Capabilities, folder: Path) -> None:
        self._age = age
        self._log = folder / "log"
        self._clock = MockClock(rate=1.0)
        config = load(socks=[str(folder / "nas")], flags={"control": "none"}, environment={})
        machine = Machine(memory=32, vchannel=Vchannel(str(folder / "nas")), extra=tuple(rom(folder, IDLE)))
        self._launch = Launch(machine, build(machine, can), config, GRACE)
        self.waited = 0.0

    def run(self) -> Ending:
        with self._log.open("w") as stream:
            log, sink = start_log("info", "json", stream)
            try:
                ending: Ending = trio.run(self._main, Launcher(self._launch, log), clock=self._clock)
            finally:
                sink.close(TIMEOUT)
        return ending

    def lines(self, event: str) -> list[dict[str, object]]:
        text = self._log.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]

    async def _main(self, launcher: Launcher) -> Ending:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop, launcher)
            return await launcher.run()

    async def _logged(self, event: str, times: int = 1) -> dict[str, object]:
        while len(lines := self.lines(event)) < times:
            await wait_all_tasks_blocked(0.01)
        return lines[times - 1]

    async def _stop(self, launcher: Launcher) -> None:
        await self._logged("QEMU runs")
        await self._logged("guest connected")
        self._clock.rate = 0.0
        self._clock.jump(self._age)
        launcher.ask_to_stop("a test")
        waits = (await self._logged("waiting for a guest that was never ready"))["seconds"]
        assert isinstance(waits, float)
        self.waited = waits
        self._clock.jump(waits - 1)
        await wait_all_tasks_blocked(0.1)
        assert len(self.lines("stopping QEMU")) == 1
        self._clock.jump(2)
        while (await self._logged("stopping QEMU", len(self.lines("stopping QEMU"))))["stage"] != "QMP quit":
            self._clock.jump(1)
            await wait_all_tasks_blocked(0.01)
        self._clock.rate = 1.0


@pytest.mark.parametrize(
    ("age", "least", "most"),
    [(0.0, UNHEARD_TIMEOUT + 1, BOOT_TIME), (86400.0, UNHEARD_TIMEOUT, UNHEARD_TIMEOUT)],
)
def test_stop_waits_one_boot_time_for_a_guest_that_was_never_ready(
    can: Capabilities, tmp_path: Path, age: float, least: float, most: float
) -> None:
    stopped = Stopped(age, can, tmp_path)
    assert stopped.run().kind is EndKind.STOPPED
    assert least <= stopped.waited <= most
    stages = stopped.lines("stopping QEMU")
    assert [stage["stage"] for stage in stages][::2] == ["the guest's own power-off, through the vchannel", "QMP quit"]
    assert stages[1]["why"] == "nas: the guest was never ready, and gave no sign of life"
