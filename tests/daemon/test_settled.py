"""Thaws that are no longer owed to a guest: another host has thawed it, or its freeze is forgotten."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.daemon.inheriting import FREEZE, FROZEN, THAW, WRITTEN, Here, here
from vhostcomm.cluster.records import ServingRecord
from vhostcomm.guest.events import Gone
from vhostcomm.guest.model import State


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("how", ["says so", "deletes its record"])
def test_no_thaw_is_owed_after_a_host_ended_its_own_freeze(how: str, connected: bool) -> None:
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
    """Only this freeze is settled, and only when the guest's QEMU is no longer connected here."""

    async def body(here: Here) -> None:
        until = (await here.freezes()).until.wall
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
        debt = await here.freezes()
        here.reads(ServingRecord("nas", "host1", State.READY, thawed={"host2": debt.until.wall}))
        assert here.owes()
        here.guest.gone(Gone("QEMU closed the connection"))
        here.inherited.look(here.guest)
        assert here.owes() is None

    here(body)


def test_the_end_of_one_freeze_keeps_another_hosts_freeze() -> None:
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
    """For example, the guest's socket leaves a watched folder and returns."""

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
