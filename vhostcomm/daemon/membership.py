"""The membership of this host in a cluster: its guests get the tree's identities, and the tree its guests' states.

Nothing waits for etcd: every exchange is a task of its own, and the daemon serves with the last accepted tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from vhostcomm import __version__
from vhostcomm.channel.guest import Guest
from vhostcomm.cluster.address import Access
from vhostcomm.cluster.following import Following, Observer
from vhostcomm.cluster.gateway import Gateway
from vhostcomm.cluster.publishing import Publishing
from vhostcomm.cluster.records import HostRecord, ServingRecord, Trouble, View
from vhostcomm.cluster.tree import Tree, settings_of
from vhostcomm.cluster.tree_file import TreeFile, TreeFileError
from vhostcomm.config.address import SYSTEM_RUNTIME
from vhostcomm.config.files import Merged
from vhostcomm.config.http_address import CONTROL_NAME
from vhostcomm.config.models import Config
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.daemon.claims import Claims
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.inherited import Inherited
from vhostcomm.errors import ConfigError
from vhostcomm.guest.events import GuestEvent
from vhostcomm.guest.model import State
from vhostcomm.linux.threads import in_slices, in_thread, short_turns
from vhostcomm.log.logs import Log

SETTLE: Final = 0.1
"""Seconds from a change of the tree to the reload: changes of one script come together."""

RELOAD_PAUSE_MAX: Final = 60.0
"""Maximum seconds from a reload to the next."""

RETRY: Final = 10.0
"""Seconds after a mistake in a file of TLS, or a bug."""

POLL_INTERVAL: Final = 5.0
"""Seconds between looks at all guests, for what no event reports, such as a guest's address."""


class Membership(Observer):
    """Connects a daemon with its cluster.

    Args:
        access: where etcd is.
        host: this host's name.
        control: the address of its control surface for other hosts; "" for that of ssh with the host's name.
        kept: the file of the last accepted tree.
    """

    def __init__(self, access: Access, host: str, control: str, kept: TreeFile) -> None:
        self.view = View(host, troubles={Trouble.UNREACHED: (time.time(), "it has not answered yet")})
        self._access = access
        self._host = HostRecord(host, control, __version__, round(time.time(), 3))
        self._kept = kept
        self._newest = Tree()
        """The newest tree, accepted or not."""
        self._rejected: tuple[Tree, ConfigError] | None = None
        self._reported: Tree | None = None
        self._active: Callable[[], object] = lambda: None
        """Returns the tree of the active configuration, once there is one."""
        self._publishing: Publishing | None = None
        self._inherited: Inherited | None = None
        self._problem = ""
        self._stored = self._newest
        self._news = trio.Event()
        self._accepted = trio.Event()
        self._looking = trio.Event()
        self._owing: set[str] = set()
        """Guests whose published record has a freeze. That of a guest that is no longer served stays, as the debt does."""
        try:
            self._newest = self._stored = kept.read()
        except TreeFileError as error:
            self._problem = str(error)

    def read(self, load: Callable[[Merged], Config]) -> Config:
        """Read the configuration with the newest tree, or with the active one if the newest is invalid. It may block.

        Args:
            load: reads the rest, which overrides the settings of the tree.

        Raises:
            VhostcommError: it can't be read with either.
        """
        newest, active = self._newest, self._active() or Tree()
        assert isinstance(active, Tree)
        try:
            made = load(self._settings_of(newest, active))
        except ConfigError as error:
            if newest is active:
                raise
            made, newest = load(settings_of(active)), active
            self._rejected = self._newest, error
        return attrs.evolve(made, tree=newest)

    def _settings_of(self, tree: Tree, active: Tree) -> Merged:
        if active.values and not tree.values:
            raise ConfigError(
                f"etcd: no key is left below {self._access.prefix}; if that is meant, put an empty one: "
                f"etcdctl put {self._access.prefix}cluster '{{}}'"
            )
        return settings_of(tree)

    async def run(self, daemon: DaemonApi, freezer: Freezer, log: Log) -> None:
        """Follow the tree and publish this host's guests, until cancelled."""
        self._active = lambda: daemon.config.tree
        if self._problem:
            log.warning("kept tree not used", why=self._problem)
            self.view.report(Trouble.UNKEPT, self._problem, time.time())
        self._report(log)
        while True:
            try:
                await self._take_part(daemon, freezer, log)
            except ConfigError as error:  # a file of TLS that was there at the start
                log.warning("cluster not reached", why=str(error), next="vhostcomm tries again")
                self.view.report(Trouble.UNREACHED, str(error), time.time())
            except Exception:
                log.exception("internal error in the exchange with the cluster; please report it")
                self.view.report(Trouble.UNREACHED, "an internal error; see the log", time.time())
            await trio.sleep(RETRY)

    async def _take_part(self, daemon: DaemonApi, freezer: Freezer, log: Log) -> None:
        control = self._host.control or _default_control(self._host.host, daemon.config.service.control)
        publishing = Publishing(attrs.evolve(self._host, control=control), self.view, log)
        claims = Claims(self.view, log)
        self._inherited = Inherited(self.view, daemon.guest, freezer)
        self._publishing = publishing
        following = Following(self.view, self._offer, (claims, self._inherited, self), log)
        async with Gateway(self._access) as gateway, trio.open_nursery() as nursery:
            nursery.start_soon(following.run, gateway)
            nursery.start_soon(publishing.run, gateway)
            nursery.start_soon(self._look, daemon, claims, self._inherited)
            nursery.start_soon(self._keep_accepted, daemon, log)
            await self._apply(daemon, log)

    def reloaded(self) -> None:
        """Note that a reload has ended, no matter what caused it."""
        self._news.set()

    def on_guest(self, guest: Guest, event: GuestEvent) -> None:
        """Publish the new state of a guest."""
        if self._inherited and event is GuestEvent.CONNECTED:
            self._inherited.look(guest)
        elif self._inherited and event is GuestEvent.THAWED:
            self._inherited.thawed(guest)
        self._update(guest)

    def _update(self, guest: Guest) -> None:
        if self._publishing is None or self._inherited is None:
            return
        record = _record(guest, self.view.host, self._inherited.settled(guest.name))
        if record.state is State.ABSENT and record.frozen_until is None:
            self._owing.discard(guest.name)
            self._publishing.drop(record.key)
        else:
            (self._owing.discard if record.frozen_until is None else self._owing.add)(guest.name)
            self._publishing.put(record)

    # -- the tree

    def _offer(self, tree: Tree) -> None:
        self._newest = tree
        self._news.set()

    async def _apply(self, daemon: DaemonApi, log: Log) -> None:
        tried = self._newest if self._rejected and self._rejected[0] is self._newest else None
        while True:
            self._news, pause = trio.Event(), 0.0
            newest, active = self._newest, daemon.config.tree
            assert isinstance(active, Tree)
            if newest is not active and newest is not tried and newest.values != active.values:
                tried = newest
                await trio.sleep(SETTLE)
                log.info("reloading", why="the cluster's tree has changed", revision=self._newest.revision)
                tried = self._newest
                began = trio.current_time()
                await daemon.reload()
                pause = min(RELOAD_PAUSE_MAX, (trio.current_time() - began) * 19)
            self._report(log)
            self._accepted.set()
            await trio.sleep(pause)  # a tree that changes all the time uses a twentieth of the daemon at most
            await self._news.wait()

    def _report(self, log: Log) -> None:
        rejected, why = self._rejected or (None, "")
        self.view.report(Trouble.REJECTED, str(why) if rejected is self._newest else "", time.time())
        if rejected and rejected is not self._reported:
            self._reported = rejected
            log.error("tree rejected, the last accepted one stays", why=why, revision=self._reported.revision)

    async def _keep_accepted(self, daemon: DaemonApi, log: Log) -> None:
        """Store accepted trees. While the disk hangs, later ones are still served."""
        while True:
            self._accepted = trio.Event()
            tree = daemon.config.tree
            assert isinstance(tree, Tree)
            if tree is not self._stored and tree.values != self._stored.values:
                await self._keep(tree, log)
            await self._accepted.wait()

    async def _keep(self, tree: Tree, log: Log) -> None:
        why = ""
        try:
            with short_turns():
                await in_thread(self._kept.path.parent, self._kept.write, tree)
        except TreeFileError as error:
            why = str(error)
            log.warning("tree not kept", why=why, consequence="a start without etcd has no guests of the cluster")
        self.view.report(Trouble.UNKEPT, why, time.time())
        self._stored = tree

    # -- the records

    def replaced(self) -> None:
        """Look at all guests, because the view was read anew."""
        self._looking.set()

    async def _look(self, daemon: DaemonApi, claims: Claims, inherited: Inherited) -> None:
        known: set[str] = set()
        while True:
            self._looking = trio.Event()
            names = set()
            async for guest in in_slices(tuple(daemon.guests.values())):
                names.add(guest.name)
                inherited.look(guest)
                self._update(guest)
            for name in known - names:
                inherited.left(name)
                if self._publishing and name not in self._owing:
                    self._publishing.drop(ServingRecord(name, self.view.host, State.ABSENT).key)
            known = names
            claims.look(trio.current_time())
            with trio.move_on_after(POLL_INTERVAL):
                await self._looking.wait()


def _record(guest: Guest, host: str, thawed: Mapping[str, float]) -> ServingRecord:
    evidence = guest.model.evidence
    return ServingRecord(
        guest.name,
        host,
        guest.state,
        round(guest.model.entered.wall, 3),
        type(evidence).__name__.lower() if evidence else "",
        guest.information.address if guest.information else None,
        None if guest.debt and guest.debt.host else guest.frozen_until,  # a host publishes its own freezes
        thawed=thawed,
    )


def _default_control(host: str, control: str) -> str:
    """Return the address of a control surface for other machines, if it has one that ssh can forward."""
    if control == "none" or control.startswith(("tcp:", "tls:")):
        return ""
    path = str(Path(control).absolute()) if control else ""
    return f"ssh://{host}{'' if path in {'', str(SYSTEM_RUNTIME / CONTROL_NAME)} else path}"
