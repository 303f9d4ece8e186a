"""Thaws that are owed to a guest which another host froze: when they are sent, and which records cause none."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio

from tests.trio_help import run
from vchannel import Command, GuestCommand, Request, Response
from vhostcomm.channel.guest import Guest
from vhostcomm.cluster.records import THAWED_MAX, HostRecord, ServingRecord, View
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.inherited import FREEZE_MAX, Inherited
from vhostcomm.guest import Debt, State, events
from vhostcomm.guest.events import Gone, GuestEvent

FREEZE, THAW = GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE
WRITTEN = 5000.0
"""A time of the other host's clock, which is wrong by decades."""

FROZEN = ServingRecord("nas", "host1", State.SILENT, frozen_until=WRITTEN + 600, written=WRITTEN)


class Here:
    """The host `host2` with a guest `nas` that answers, as the daemon connects them."""

    def __init__(self) -> None:
        self.asked: list[Command] = []
        self.view = View("host2")
        self.view.put(HostRecord("host1"))
        log = structlog.get_logger()
        self.guest = Guest("nas", Listen(Path("/nowhere/nas")), HostIdentity(), GuestIdentity(), log)
        self.guest.listeners.append(self._on_guest)
        self.freezer = Freezer(self._ask, log)
        self.found = {"nas": self.guest}
        self.inherited = Inherited(self.view, self.found.get, self.freezer)

    async def _ask(
        self, name: str, command: Command, data: bytes = b"", *, timeout: float, by: str = "",
        sending: Callable[[], None] | None = None,
    ) -> Response:  # fmt: skip
        assert (name, data) == ("nas", b"")
        assert timeout > 0
        assert by
        assert sending
        sending()
        self.asked.append(command)
        return Request.of(command).reply(b"")

    def _on_guest(self, guest: Guest, event: GuestEvent) -> None:
        match event:
            case events.Connected():
                self.freezer.connected(guest)
                self.inherited.look(guest)
            case events.Thawed():
                self.inherited.thawed(guest)
            case _:
                pass

    def hears(self, record: ServingRecord) -> None:
        self.view.put(record)
        self.inherited.heard(record)

    def reads(self, *records: ServingRecord) -> None:
        self.view.replace([*self.view.hosts.values(), *records])
        self.inherited.replaced()
        self.inherited.look(self.guest)

    def misses(self, *keys: str) -> None:
        for key in keys:
            self.view.remove(key)
            self.inherited.removed(key)

    def owes(self) -> Debt | None:
        return self.guest.debt

    @property
    def settled(self) -> dict[str, float]:
        return dict(self.inherited.settled("nas"))


def here(test: Callable[[Here], Awaitable[None]]) -> None:
    async def main() -> None:
        made = Here()
        async with trio.open_nursery() as nursery:
            await nursery.start(made.freezer.run)
            await test(made)
            nursery.cancel_scope.cancel()

    run(main)


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
        # It is published as thawed while the other host publishes the freeze, and not thawed again.
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
    """It was written 100 s ago, by a clock that is right, an hour ahead, or an hour behind: never more than it said."""

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
    """Its records vanish, that of the host first."""

    async def body(here: Here) -> None:
        here.hears(FROZEN)
        here.misses("hosts/host1", FROZEN.key)
        here.reads()
        await trio.sleep(10_000)
        here.guest.connected()
        await trio.sleep(1)
        assert (here.asked, here.settled) == ([THAW], {})

    here(body)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("how", ["says so", "deletes its record"])
def test_a_host_that_thaws_the_guest_itself(how: str, connected: bool) -> None:
    async def body(here: Here) -> None:
        if connected:
            here.guest.connected()
        here.hears(FROZEN)
        if how == "says so":
            here.hears(attrs.evolve(FROZEN, frozen_until=None))
        else:
            here.misses(FROZEN.key)
        assert here.owes() is None
        if not connected:
            here.guest.connected()
        await trio.sleep(1000)
        assert here.asked == []

    here(body)


def test_a_guest_that_another_host_thawed_is_no_longer_owed_a_thaw() -> None:
    """Only that very freeze is settled, and only if its QEMU is no longer connected here."""

    async def body(here: Here) -> None:
        here.guest.connected()
        await here.freezer.freeze(here.guest, 600, timeout=5, by="test")
        debt = here.owes()
        assert debt
        until = debt.until.wall
        thawed = ServingRecord("nas", "host1", State.READY, thawed={"host2": until})
        here.hears(thawed)
        here.inherited.look(here.guest)
        assert here.owes()
        here.guest.gone(Gone("QEMU closed the connection"))
        for other in ({"host2": until - 1}, {"host3": until}, {}):
            here.hears(attrs.evolve(thawed, thawed=other))
            here.inherited.look(here.guest)
        assert here.owes()
        here.hears(thawed)
        assert here.owes() is None
        assert here.asked == [FREEZE]

    here(body)


def test_a_settled_freeze_is_noted_when_the_guest_has_left() -> None:
    """The source of a migration is still connected when the destination thaws the guest."""

    async def body(here: Here) -> None:
        here.guest.connected()
        await here.freezer.freeze(here.guest, 600, timeout=5, by="test")
        debt = here.owes()
        assert debt
        here.reads(ServingRecord("nas", "host1", State.READY, thawed={"host2": debt.until.wall}))
        assert here.owes()
        here.guest.gone(Gone("QEMU closed the connection"))
        here.inherited.look(here.guest)
        assert here.owes() is None

    here(body)


def test_any_number_of_names_is_bounded() -> None:
    async def body(here: Here) -> None:
        for number in range(2 * THAWED_MAX):
            here.hears(attrs.evolve(FROZEN, host=f"other{number}"))
        here.guest.connected()
        await trio.sleep(1000)
        assert here.asked == [THAW]
        assert len(here.settled) == THAWED_MAX
        known: Any
        for number in range(1000):
            here.hears(attrs.evolve(FROZEN, guest=f"guest{number}"))
            here.misses(f"serving/guest{number}/host1")
        for known in (here.inherited._freezes, here.inherited._owed, here.inherited._acknowledged):
            assert len(known) <= 1

    here(body)


def test_the_end_of_one_freeze_keeps_that_of_another_host() -> None:
    """No thaw was sent, so none is published."""

    async def body(here: Here) -> None:
        here.guest.connected()
        here.hears(attrs.evolve(FROZEN, frozen_until=WRITTEN + 900))
        here.hears(attrs.evolve(FROZEN, host="host3"))
        here.misses("serving/nas/host1")
        assert here.settled == {}
        debt = here.owes()
        assert debt
        assert debt.host == "host3"
        await trio.sleep(599)
        assert here.asked == []
        await trio.sleep(2)
        assert (here.asked, here.settled) == ([THAW], {"host3": FROZEN.frozen_until})

    here(body)


def test_an_acknowledgement_keeps_a_new_freeze_of_the_same_host() -> None:
    """The other host thawed the guest and froze it again, and then the guest returns."""

    async def body(here: Here) -> None:
        here.guest.connected()
        await here.freezer.freeze(here.guest, 300, timeout=5, by="test")
        debt = here.owes()
        assert debt
        here.guest.gone(Gone("QEMU closed the connection"))
        here.hears(attrs.evolve(FROZEN, thawed={"host2": debt.until.wall}))
        assert (here.owes(), here.settled) == (None, {})
        here.guest.connected()
        debt = here.owes()
        assert debt
        assert debt.host == "host1"
        await trio.sleep(601)
        assert (here.asked, here.settled) == ([FREEZE, THAW], {"host1": FROZEN.frozen_until})

    here(body)


@pytest.mark.parametrize("published", [True, False])
def test_a_guest_that_is_missing_for_a_moment_keeps_published_freezes(published: bool) -> None:
    """Its socket leaves a watched folder and returns, for example."""

    async def body(here: Here) -> None:
        here.hears(FROZEN)
        here.found.clear()
        here.inherited.left("nas")
        if not published:
            here.misses(FROZEN.key)
        here.found["nas"] = here.guest
        here.guest.connected()
        await trio.sleep(1000)
        assert here.asked == ([THAW] if published else [])

    here(body)


def test_the_freeze_of_a_dead_host_is_forgotten_with_the_guest() -> None:
    async def body(here: Here) -> None:
        here.hears(FROZEN)
        here.misses("hosts/host1", FROZEN.key)
        here.inherited.left("nas")
        here.guest.connected()
        assert here.owes() is None

    here(body)


def test_each_freeze_is_reported_at_once() -> None:
    """Also on top of a debt: another host that waited for the next look would thaw the guest at the earlier time."""

    async def body(here: Here) -> None:
        reported: list[tuple[float | None, str]] = []

        def note(guest: Guest, event: GuestEvent) -> None:
            if isinstance(event, events.Frozen):
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
def test_a_host_that_changes_its_freeze_all_the_time(withdrawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It causes a limited number of log messages, one thaw a second, and two writes at a time: the thaw's and one other."""
    writing = most = 0

    async def update(guest: Guest) -> None:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        await trio.sleep(0.1)
        writing -= 1
        written.append(guest.debt)

    async def body(here: Here) -> None:
        monkeypatch.setattr(here.freezer._files, "update", update)
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
        assert here.owes() is written[-1] is None
        assert most <= 2

    written: list[Debt | None] = []
    with structlog.testing.capture_logs() as lines:
        here(body)
    assert len(lines) < 150
