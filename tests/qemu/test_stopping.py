"""Stages of a stop, with a target that ends at a chosen stage, on a mock clock."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio
from attrs import define, field

from tests.qemu.running import grace_of
from tests.trio_help import run
from vhostcomm.qemu.ending import Stage
from vhostcomm.qemu.pause_cause import describe
from vhostcomm.qemu.qmp import QmpClosedError, QmpTimeoutError
from vhostcomm.qemu.stopping import Grace, PowerOff, Stopping, split_grace

GRACE = grace_of(40, 10, 5, 3)


@define
class Target:
    """A stand-in for QEMU that ends at a command or signal in `obeys`.

    With `hangs`, QMP does not answer. `over` is the time at which the stop ended.
    """

    obeys: set[str]
    hangs: bool = False
    status: str = "running"
    log: list[tuple[float, str]] = field(factory=list)
    ended: trio.Event = field(factory=trio.Event)
    over: float = 0.0

    async def command(self, name: str, /) -> object:
        if self.hangs:
            await trio.sleep(5)
            raise QmpTimeoutError(f"QMP {name}: no reply within 5 s")
        if name == "query-status":
            return {"running": self.status == "running", "status": self.status}
        self._do(name)
        if self.ended.is_set() and name == "quit":
            raise QmpClosedError("QMP quit: QEMU closed the QMP connection")
        return {}

    def send_signal(self, number: signal.Signals) -> None:
        self._do(number.name)

    async def poweroff(self) -> None:
        await trio.sleep(2)
        self._do("poweroff")

    def _do(self, what: str) -> None:
        self.log.append((self.elapsed(), what))
        if what in self.obeys:
            self.ended.set()

    _begin: float = field(init=False, default=0.0)

    def begin(self) -> None:
        self._begin = trio.current_time()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return round(trio.current_time() - self._begin, 3)


Stages = list[tuple[str, float, str]]


def stop(
    target: Target,
    poweroff: PowerOff | None = None,
    *,
    grace: Grace = GRACE,
    hurries: tuple[float, ...] = (),
    pauses: tuple[float, ...] = (),
) -> tuple[bool, Stages]:
    stages: Stages = []

    async def main() -> bool:
        target.begin()
        stopping = Stopping(target, poweroff, grace, lambda n: stages.append((n.stage.name, n.seconds, n.why)))
        assert stopping.paused == ""

        async def hurry() -> None:
            for delay in hurries:
                await trio.sleep(delay)
                stopping.hurry()

        async def pause() -> None:
            for delay in pauses:
                await trio.sleep(delay)
                stopping.found_paused("io-error", f"a full disk after {delay:g} s")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hurry)
            nursery.start_soon(pause)
            gone = await stopping.run()
            target.over = target.elapsed()
            nursery.cancel_scope.cancel()
        return gone

    gone: bool = run(main)
    return gone, stages


def test_the_guest_powers_itself_off() -> None:
    target = Target({"poweroff"})
    gone, stages = stop(target, target.poweroff)
    assert gone
    assert stages == [("POWEROFF", 40, "asked to stop")]
    assert target.log == [(2, "poweroff")]


def test_one_stage_after_the_other_each_with_the_reason() -> None:
    target = Target({"SIGKILL"})
    gone, stages = stop(target, target.poweroff)
    assert gone
    assert stages == [
        ("POWEROFF", 40, "asked to stop"),
        ("POWERDOWN", 10, "QEMU still ran after 40 s"),
        ("QUIT", 5, "QEMU still ran after 5 s"),
        ("TERMINATE", 3, "QEMU still ran after 5 s"),
        ("KILL", 10, "QEMU still ran after 3 s"),
    ]
    assert target.log == [
        (2, "poweroff"), (40, "system_powerdown"), (45, "system_powerdown"), (50, "quit"), (55, "SIGTERM"),
        (58, "SIGKILL"),
    ]  # fmt: skip


@pytest.mark.parametrize(("effective", "after"), [("system_powerdown", 40), ("quit", 50), ("SIGTERM", 55)])
def test_stop_ends_with_the_stage_that_succeeds(effective: str, after: float) -> None:
    target = Target({effective})
    gone, _ = stop(target, target.poweroff)
    assert gone
    assert target.log[-1] == (after, effective)


def test_a_guest_that_cannot_be_asked_is_not_waited_for() -> None:
    target = Target({"quit"})
    _, stages = stop(target, None, grace=split_grace(90, ready=False))
    assert [(stage, seconds) for stage, seconds, _ in stages] == [("POWERDOWN", 6), ("QUIT", 5)]
    assert stages[0][2] == "asked to stop; there is no way to ask the guest, so its own power-off is skipped"


def failing(error: Exception) -> PowerOff:
    async def poweroff() -> None:
        await trio.sleep(1)
        raise error

    return poweroff


@pytest.mark.parametrize(
    ("error", "why"),
    [(OSError("the channel is closed"), "the channel is closed"), (TimeoutError(), "TimeoutError"),
     (ExceptionGroup("two", [OSError("x"), OSError("y")]), "two (2 sub-exceptions)")],
)  # fmt: skip
def test_a_failed_power_off_is_reported_and_not_waited_for(error: Exception, why: str) -> None:
    target = Target({"system_powerdown"})
    _, stages = stop(target, failing(error))
    assert stages == [("POWEROFF", 40, "asked to stop"), ("POWERDOWN", 10, why)]
    assert target.log == [(1, "system_powerdown")]


def test_hanging_power_off_times_out() -> None:
    target = Target({"system_powerdown"})
    stop(target, trio.sleep_forever)
    assert target.log == [(40, "system_powerdown")]


def test_a_qemu_that_does_not_answer_gets_signals() -> None:
    target = Target({"SIGKILL"}, hangs=True)
    _, stages = stop(target, target.poweroff)
    assert stages == [
        ("TERMINATE", 3, "asked to stop; QMP query-status: no reply within 5 s"),
        ("KILL", 10, "QEMU still ran after 3 s"),
    ]
    assert target.log == [(5, "SIGTERM"), (8, "SIGKILL")]


@pytest.mark.parametrize("status", ["paused", "prelaunch", "guest-panicked", "internal-error"])
def test_a_guest_that_does_not_run_is_not_asked(status: str) -> None:
    target = Target({"SIGTERM"}, status=status)
    _, stages = stop(target, target.poweroff)
    why = f"the machine is paused, so the guest can't shut down: {describe(status).cause} ({status})"
    assert stages == [("QUIT", 5, f"asked to stop; {why}"), ("TERMINATE", 3, why)]


def test_status_without_running_counts_as_running() -> None:
    class Brief(Target):
        async def command(self, name: str, /) -> object:
            return {"status": "running"} if name == "query-status" else await super().command(name)

    target = Brief({"poweroff"})
    _, stages = stop(target, target.poweroff)
    assert stages == [("POWEROFF", 40, "asked to stop")]


FULL = "the machine is paused, so the guest can't shut down: a full disk after {} s (io-error)"


def test_stop_does_not_wait_for_a_guest_paused_meanwhile() -> None:
    target = Target({"SIGKILL"})
    _, stages = stop(target, trio.sleep_forever, pauses=(1, 1, 1))
    assert stages == [
        ("POWEROFF", 40, "asked to stop"), ("QUIT", 5, FULL.format(1)), ("TERMINATE", 3, FULL.format(1)),
        ("KILL", 10, FULL.format(1)),
    ]  # fmt: skip
    assert target.log == [(1, "quit"), (6, "SIGTERM"), (9, "SIGKILL")], "the pause shortened QEMU's own time"


def test_a_guest_paused_during_its_power_button() -> None:
    target = Target({"SIGTERM"})
    _, stages = stop(target, None, pauses=(7,))
    assert stages == [
        ("POWERDOWN", 10, "asked to stop; there is no way to ask the guest, so its own power-off is skipped"),
        ("QUIT", 5, FULL.format(7)), ("TERMINATE", 3, FULL.format(7)),
    ]  # fmt: skip
    assert target.log[-2:] == [(7, "quit"), (12, "SIGTERM")]


def test_a_pause_cuts_only_the_wait_for_the_guest() -> None:
    """QMP's first answer and QEMU's own stages keep their whole time."""
    hanging = Target({"SIGTERM"}, hangs=True)
    _, stages = stop(hanging, hanging.poweroff, pauses=(1,))
    assert stages == [("TERMINATE", 3, "asked to stop; QMP query-status: no reply within 5 s")]
    assert hanging.log == [(5, "SIGTERM")]
    quitting = Target({"SIGTERM"})
    _, stages = stop(quitting, None, pauses=(12,))
    assert stages[-1:] == [("TERMINATE", 3, FULL.format(12))]
    assert quitting.log[-2:] == [(10, "quit"), (15, "SIGTERM")]


def test_a_sleeping_guest_is_woken_up() -> None:
    target = Target({"poweroff"}, status="suspended")
    _, stages = stop(target, target.poweroff)
    assert stages == [("POWEROFF", 40, "asked to stop; the guest was suspended and is woken up first")]
    assert target.log == [(0, "system_wakeup"), (2, "poweroff")]


def test_a_sleeping_guest_that_cannot_be_woken_up() -> None:
    class Deaf(Target):
        async def command(self, name: str, /) -> object:
            if name == "system_wakeup":
                raise QmpClosedError("QMP system_wakeup: refused")
            return await super().command(name)

    _, stages = stop(Deaf({"quit"}, status="suspended"), trio.sleep_forever)
    why = f"the machine is paused, so the guest can't shut down: {describe('suspended').cause} (suspended)"
    assert stages == [("QUIT", 5, f"asked to stop; {why}")]


def test_grace_is_divided_among_the_stages() -> None:
    assert split_grace(ready=True) == split_grace(90, ready=True) == grace_of(61.5, 20.5, 5, 3)
    assert split_grace(90, ready=False) == grace_of(61.5, 6, 5, 3)
    assert split_grace(10, ready=True) == split_grace(10, ready=False) == grace_of(6, 2, 1, 1)
    assert split_grace(10, ready=True)[Stage.KILL] == 10


@pytest.mark.parametrize("poweroff", [Target.poweroff, None])
def test_second_request_skips_the_guests_stages(poweroff: Callable[[Target], PowerOff] | None) -> None:
    target = Target({"SIGKILL"})
    _, stages = stop(target, target.poweroff if poweroff else None, hurries=(1,))
    assert stages[1:] == [
        ("QUIT", 1, "asked again"), ("TERMINATE", 1, "asked again"), ("KILL", 10, "asked again"),
    ]  # fmt: skip
    assert [each for each in target.log if each[1] != "system_powerdown"] == [
        (1, "quit"), (2, "SIGTERM"), (3, "SIGKILL"),
    ]  # fmt: skip


def test_a_third_request_kills() -> None:
    target = Target({"SIGKILL"})
    stop(target, target.poweroff, hurries=(1, 0.5))
    assert target.log == [(1, "quit"), (1.5, "SIGKILL")]


def test_more_requests_do_not_cut_the_last_wait() -> None:
    target = Target(set())
    gone, stages = stop(target, target.poweroff, hurries=(1, 0.5, 0.1, 0.1))
    assert not gone, "the target ended"
    assert stages[-1][:2] == ("KILL", 10)
    assert target.over == 11.5


def test_a_second_request_while_qmp_does_not_answer() -> None:
    target = Target({"SIGKILL"}, hangs=True)
    stop(target, target.poweroff, hurries=(1,))
    assert target.log == [(2, "SIGTERM"), (3, "SIGKILL")]


def test_qemu_that_ends_by_itself_ends_the_stop() -> None:
    target = Target(set())
    target.ended.set()
    gone, stages = stop(target, target.poweroff)
    assert gone
    assert stages == []


def test_a_second_request_before_the_first_is_carried_out() -> None:
    target = Target({"quit"})

    async def main() -> list[Stage]:
        target.begin()
        stages: list[Stage] = []
        stopping = Stopping(target, target.poweroff, GRACE, lambda n: stages.append(n.stage))
        stopping.hurry()
        await stopping.run()
        return stages

    assert run(main) == [Stage.QUIT]


def test_qmp_that_ends_before_qemu_is_no_failure() -> None:
    class Closing(Target):
        async def command(self, name: str, /) -> object:
            if name == "quit":
                raise QmpClosedError("QMP quit: QEMU closed the QMP connection")
            return await super().command(name)

    target = Closing({"SIGTERM"})
    _, stages = stop(target, None)
    assert stages[-1:] == [("TERMINATE", 3, "QEMU still ran after 5 s")]
    assert target.log[-1] == (15, "SIGTERM")


@pytest.mark.parametrize("total", [1, 10, 60, 90, 600])
@pytest.mark.parametrize("ready", [True, False])
def test_stages_never_exceed_the_grace(total: float, ready: bool) -> None:
    grace = split_grace(total, ready=ready)
    stages = [grace[stage] for stage in Stage if stage < Stage.KILL]
    assert sum(stages) <= total + 1e-9
    assert all(seconds > 0 for seconds in stages)
    assert grace[Stage.POWEROFF] > total / 2, "the guest has less than half of the time"
    if ready:
        assert sum(stages) == pytest.approx(total)
