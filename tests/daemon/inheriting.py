"""A host of a cluster with one guest, for tests of thaws that it owes for other hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import trio

from tests.trio_help import run
from vchannel import Command, GuestCommand, Request, Response
from vhostcomm.channel.asker import Asker
from vhostcomm.channel.guest import Guest
from vhostcomm.cluster.records import HostRecord, ServingRecord, View
from vhostcomm.config.address import Listen
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.inherited import Inherited
from vhostcomm.guest.debt import Debt
from vhostcomm.guest.events import GuestEvent
from vhostcomm.guest.model import State

FREEZE, THAW = GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE
WRITTEN = 5000.0
"""A time of the other host's clock, which is wrong by decades."""

FROZEN = ServingRecord("nas", "host1", State.SILENT, frozen_until=WRITTEN + 600, written=WRITTEN)


class Answering(Asker):
    """Notes what it is asked, and answers."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.asked: list[Command] = []

    async def ask(
        self, command: Command, data: bytes = b"", *, timeout: float, by: str = "",
        sending: Callable[[], None] | None = None,
    ) -> Response:  # fmt: skip
        assert data == b""
        assert timeout > 0
        assert by
        assert sending
        sending()
        self.asked.append(command)
        return Request.of(command).reply(b"")


class Here:
    """The host `host2` and its guest `nas`, which answers. They are connected as in the daemon."""

    def __init__(self) -> None:
        self.view = View("host2")
        self.view.put(HostRecord("host1"))
        log = structlog.get_logger()
        self.guest = Guest("nas", Listen(Path("/nowhere/nas")), HostIdentity(), GuestIdentity(), log)
        self.guest.listeners.append(self._on_guest)
        asker = Answering(self.guest)
        self.asked = asker.asked
        self.freezer = Freezer({"nas": asker}.get, log)
        self.found = {"nas": self.guest}
        self.inherited = Inherited(self.view, self.found.get, self.freezer)

    def _on_guest(self, guest: Guest, event: GuestEvent) -> None:
        match event:
            case GuestEvent.CONNECTED:
                self.freezer.connected(guest)
                self.inherited.look(guest)
            case GuestEvent.THAWED:
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

    async def freezes(self) -> Debt:
        """Connect the guest and freeze it for ten minutes; returns the debt."""
        self.guest.connected()
        await self.freezer.freeze(self.guest, 600, timeout=5, by="test")
        assert self.guest.debt
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
