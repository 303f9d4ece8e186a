"""Thaws that are owed to a guest which another host froze: when they are sent."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import structlog
import trio

from tests.daemon.inheriting import FREEZE, FROZEN, THAW, WRITTEN, Here, here
from vhostcomm.channel.guest import Guest
from vhostcomm.cluster.records import THAWED_MAX
from vhostcomm.daemon import debt_files
from vhostcomm.daemon.debt_files import WRITE_TIMEOUT
from vhostcomm.daemon.inherited import FREEZE_MAX
from vhostcomm.guest.events import Gone, GuestEvent
from vhostcomm.guest.model import State


def test_a_thaw_is_sent_once_when_its_time_is_over() -> None:
    async def body(here: Here) -> None:
        here.hears(FROZEN)
        await trio.sleep(100)
        assert here.owes() is None
        here.guest.connected()
        debt = here.owes()
        assert debt
        assert debt.by == "a client of host1"
        await trio.sleep(499)
        assert (here.asked, here.settled) == ([], {})
        await trio.sleep(2)
        assert here.asked == [THAW]
        # The thaw is published while the other host publishes the freeze, and is not sent again.
        assert here.settled == {"host1": FROZEN.frozen_until}
        here.hears(attrs.evolve(FROZEN, state=State.ABSENT))
        here.reads(attrs.evolve(FROZEN, state=State.ABSENT))
        here.guest.gone(Gone("QEMU closed the connection"))
        here.guest.connected()
        await trio.sleep(1000)
        assert (here.asked, here.owes()) == ([THAW], None)
        here.misses(FROZEN.key)
        assert here.settled == {}
        # Another freeze of that host is another debt.
        here.hears(attrs.evolve(FROZEN, frozen_until=WRITTEN + 700))
        await trio.sleep(1000)
        assert here.asked == [THAW] * 2

    here(body)


@pytest.mark.parametrize(("until", "written", "due"), [
    (253_402_300_000.0, 0.0, FREEZE_MAX),
    (253_402_300_000.0, None, FREEZE_MAX),
    (0.0, 253_402_300_000.0, 0.0),
    (0.0, None, 0.0),
])  # fmt: skip
def test_a_thaw_is_sent_in_time_whatever_was_written(until: float, written: float | None, due: float) -> None:
    async def body(here: Here) -> None:
        here.guest.connected()
        here.hears(attrs.evolve(FROZEN, frozen_until=until, written=written))
        await trio.sleep(due - 1 if due else 0.1)
        assert here.asked == ([] if due else [THAW])
        await trio.sleep(2)
        assert here.asked == [THAW]

    here(body)


@pytest.mark.parametrize(("ahead", "due"), [(0.0, 500.0), (3600.0, 600.0), (-3600.0, 0.0)])
def test_the_age_of_a_record_that_is_read_counts_if_clocks_agree(ahead: float, due: float) -> None:
    """A clock that is right, an hour ahead or behind wrote it 100 s ago. No thaw comes later than the record says."""

    async def body(here: Here) -> None:
        written = time.time() + ahead - 100
        here.guest.connected()
        here.reads(attrs.evolve(FROZEN, frozen_until=written + 600, written=written))
        if due:
            await trio.sleep(due - 10)
            assert here.asked == []
        await trio.sleep(20)
        assert here.asked == [THAW]

    here(body)


def test_a_freeze_of_this_host_is_not_thawed_early() -> None:
    async def body(here: Here) -> None:
        here.guest.connected()
        here.hears(FROZEN)
        await here.freezer.freeze(here.guest, 1000, timeout=5, by="test")
        here.hears(attrs.evolve(FROZEN, frozen_until=WRITTEN + 10))
        await trio.sleep(990)
        assert here.asked == [FREEZE]
        await trio.sleep(20)
        assert here.asked == [FREEZE, THAW]
        assert here.settled == {"host1": WRITTEN + 10}

    here(body)


def test_the_last_of_several_freezes_counts() -> None:
    async def body(here: Here) -> None:
        here.guest.connected()
        here.hears(FROZEN)
        here.hears(attrs.evolve(FROZEN, host="host3", frozen_until=WRITTEN + 900))
        await trio.sleep(890)
        assert here.asked == []
        await trio.sleep(20)
        assert here.asked == [THAW]
        assert here.settled.keys() == {"host1", "host3"}

    here(body)


def test_a_host_that_dies_leaves_its_debt() -> None:
    """The host's own record vanishes first, then its record of the guest."""

    async def body(here: Here) -> None:
        here.hears(FROZEN)
        here.misses("hosts/host1", FROZEN.key)
        here.reads()
        await trio.sleep(10_000)
        here.guest.connected()
        await trio.sleep(1)
        assert (here.asked, here.settled) == ([THAW], {})

    here(body)


def test_remembered_names_are_limited() -> None:
    async def body(here: Here) -> None:
        for number in range(2 * THAWED_MAX):
            here.hears(attrs.evolve(FROZEN, host=f"other{number}"))
        here.guest.connected()
        await trio.sleep(1000)
        assert here.asked == [THAW]
        assert len(here.settled) == THAWED_MAX

    here(body)


def test_guests_of_the_past_cost_no_memory() -> None:
    async def body(here: Here) -> None:
        tracemalloc.start()
        try:
            for number in range(1000):
                here.hears(attrs.evolve(FROZEN, guest=f"guest{number}", thawed={"host2": WRITTEN}))
                here.misses(f"serving/guest{number}/host1")
            assert tracemalloc.get_traced_memory()[0] < 32 * 1000, "an entry of a dictionary has more than 100 bytes"
        finally:
            tracemalloc.stop()

    here(body)


def test_each_freeze_is_reported_at_once() -> None:
    """This includes a freeze on top of a debt: a host that did not know of it would thaw the guest too early."""

    async def body(here: Here) -> None:
        reported: list[tuple[float | None, str]] = []

        def note(guest: Guest, event: GuestEvent) -> None:
            if event is GuestEvent.FROZEN:
                assert guest.debt
                reported.append((guest.frozen_until, guest.debt.host))

        here.guest.connected()
        here.hears(FROZEN)
        here.guest.listeners.append(note)
        for seconds in (700, 800):
            await here.freezer.freeze(here.guest, seconds, timeout=5, by="test")
            assert reported[-1:] == [(here.guest.frozen_until, "")]
        assert len(reported) == 2

    here(body)


@pytest.mark.parametrize("withdrawn", [False, True])
def test_cost_of_a_freeze_that_keeps_changing_is_limited(
    withdrawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are few log messages, one thaw a second, and two writes at a time: the thaw's and one other."""
    writing = most = 0
    file = tmp_path / ".nas.frozen"

    async def slowly(place: Path, change: Callable[[], None], timeout: float) -> None:
        nonlocal writing, most
        assert (place, timeout) == (tmp_path, WRITE_TIMEOUT)
        writing += 1
        most = max(most, writing)
        change()
        await trio.sleep(0.1)
        writing -= 1
        written.append(file.exists())

    async def body(here: Here) -> None:
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
        monkeypatch.setattr(debt_files, "unless_it_hangs", slowly)
        here.guest.connected()
        for number in range(200):
            here.hears(attrs.evolve(FROZEN, frozen_until=WRITTEN - number))
            await trio.lowlevel.checkpoint()
            if withdrawn:
                here.hears(attrs.evolve(FROZEN, frozen_until=None))
            if number % 4 == 0:
                await trio.sleep(0.1)
        await trio.sleep(10)
        assert 2 <= len(here.asked) <= 7
        assert here.owes() is None
        assert any(written)
        assert not file.exists()
        assert most <= 2

    written: list[bool] = []
    with structlog.testing.capture_logs() as lines:
        here(body)
    assert len(lines) < 150
