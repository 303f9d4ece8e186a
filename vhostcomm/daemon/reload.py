"""Reload: read the configuration again and apply it, completely or not at all."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeVar

import attrs
import trio
from attrs import define, field, frozen

from vhostcomm.channel.sockets import group_id
from vhostcomm.channel.watch import WatchedFolder
from vhostcomm.config.address import Address
from vhostcomm.config.load import check
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.control.daemon_api import NO_FILE, Reloaded
from vhostcomm.control.surface import Surface
from vhostcomm.daemon.descriptors import raise_descriptor_limit
from vhostcomm.daemon.folders import Folders
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.opening import ServedPort
from vhostcomm.daemon.ports import Ports
from vhostcomm.errors import ConfigError, ServeError, VhostcommError
from vhostcomm.linux.threads import in_slices, in_thread, short_turns
from vhostcomm.log.logs import Log

READ_DEADLINE: Final = 30.0
"""Seconds to read the configuration. That of 10,000 guests needs a few; a hanging file system needs for ever."""

RETRY_FIRST: Final = 2.0
RETRY_MAX: Final = 60.0
"""Seconds before a configuration that could not be served is tried again: doubled up to this maximum."""

T = TypeVar("T")


@define(eq=False)
class _Turn:
    """One reload, for the tasks that wait for it."""

    done: trio.Event = field(factory=trio.Event)
    result: Reloaded = field(factory=Reloaded)


@frozen
class _Plan:
    """The changes of a new configuration."""

    opening: list[GuestConfig] = field(factory=list)
    """New guests, and guests with a new address."""
    ending: list[ServedPort] = field(factory=list)
    staying: list[tuple[ServedPort, GuestConfig]] = field(factory=list)
    by_address: dict[Address, ServedPort] = field(factory=dict)
    """Ending ports by address: a new guest with such an address takes over the socket."""


@define(eq=False)
class Reload:
    """Reads the configuration again and applies it: check it, open new ports, change guests, then close old ports.

    If a step fails, nothing has changed.

    Args:
        config: the active configuration.
        read: reads the configuration; None if it can't change.
        ports: the running ports.
        folders: the guests in watched directories.
        surface: its certificates, if it has any, are read again.
        freezer: thaws a frozen guest before its port ends.
        around: entered around each requested reload.
        changed: called when `why_not` may have changed.
    """

    config: Config
    _read: Callable[[], Config] | None
    _ports: Ports
    _folders: Folders
    _surface: Surface
    _freezer: Freezer
    _around: Callable[[], AbstractContextManager[None]]
    _changed: Callable[[], None]
    _log: Log
    why_not: str = field(default="", init=False)
    """Why the last reload was rejected; empty if it was accepted."""
    _asked: trio.Event = field(factory=trio.Event, init=False)
    _turn: _Turn = field(factory=_Turn, init=False)
    _again: Config | None = field(default=None, init=False)

    def ask(self) -> None:
        """Request a reload."""
        self._asked.set()

    async def wait(self) -> Reloaded:
        """Request a reload and wait for it.

        Unchanged guests are not affected, and an invalid configuration is rejected as a whole. Cancelling the wait does
        not cancel the reload.
        """
        turn = self._turn
        self.ask()
        await turn.done.wait()
        return turn.result

    async def run(self) -> None:
        """Reload on request, and retry what could not be served, until cancelled."""
        pause = RETRY_FIRST
        while True:
            with trio.move_on_after(pause if self._again else float("inf")):
                await self._asked.wait()
            if not self._asked.is_set():
                pause = min(2 * pause, RETRY_MAX)
                assert self._again
                with without_collections():
                    await self._serve(self._again, again=True)
                continue
            self._asked, turn, self._turn = trio.Event(), self._turn, _Turn()
            pause = RETRY_FIRST
            with self._around(), without_collections():
                turn.result = await self._reload()
            turn.done.set()

    async def _reload(self) -> Reloaded:
        self._again = None
        if self._read is None and not self._surface.has_tls:
            self._log.warning("nothing to reload: there is no --config file")
            return Reloaded(NO_FILE)  # the active configuration is fine
        needs_restart: tuple[str, ...] = ()
        try:
            config = self.config
            if self._read:
                config, needs_restart = await _read_in_thread(self._read_checked)
        except VhostcommError as error:
            self._log.error("reload rejected, the old configuration stays", why=error)
            return self._rejected(error)
        except Exception:  # noqa: BLE001 - no file may end the service
            self._log.exception("internal error in reading the configuration, keeping the old one; please report it")
            return self._rejected(VhostcommError("an internal error; see the log"))
        result = await self._serve(config)
        return result if result.why_not else Reloaded(needs_restart=needs_restart)

    async def _serve(self, config: Config, *, again: bool = False) -> Reloaded:
        try:
            use = await _read_in_thread(self._surface.read_again) if self._surface.has_tls else None
            await self._change(config)
            if use:
                use()
        except VhostcommError as error:
            self._again = config
            if not again or str(error) != self.why_not:
                self._log.error("reload rejected, the old configuration stays", why=error, next="vhostcomm tries again")
            return self._rejected(error)
        except Exception:  # noqa: BLE001 - nor may a bug
            self._again = None
            self._log.exception("internal error in a reload; please report it")
            return self._rejected(VhostcommError("an internal error; see the log"))
        self._again = None
        return self._rejected()

    def _rejected(self, why: VhostcommError | None = None) -> Reloaded:
        self.why_not = str(why or "")
        self._changed()
        # Without the error itself: its traceback would keep the rejected configuration in memory.
        return Reloaded(why.summary, why.details) if why else Reloaded()

    async def _change(self, config: Config) -> None:
        raise_descriptor_limit(config, self._log)
        plan = await self._plan(config)
        # Open everything new before any change: until here, the reload can fail.
        opened = await self._ports.open_all(plan.opening, config.host, frozenset(plan.by_address))
        try:
            await self._freezer.thaw_all((each.port.guest for each in plan.ending), "it is not served any longer")
        except BaseException:
            await self._ports.discard(opened)
            raise
        self.config, self._ports.host = config, config.host
        known = {guest.name for guest in config.guests}
        changed = 0
        async for served, new in in_slices(plan.staying):
            changed += self._ports.change(served, new, config.host)
            served.folder = served.folder if new.name not in known else None
        ending = list(plan.ending)
        before_by_name = {each.config.name: each.port.guest for each in ending}
        handed_over = []
        async for served in in_slices(opened):
            if moved := before_by_name.get(served.config.name):
                guests = moved, served.port.guest
                if self._freezer.hand_over(*guests):
                    handed_over.append(guests)
            if old := plan.by_address.get(served.config.address):
                served.port.take_over(old.port)
            # It was found in a watched directory meanwhile.
            if (before := self._ports.get(served.config.name)) and before not in plan.ending:
                ending.append(before)
            self._ports.start(served)
        for guests in handed_over:
            await self._freezer.record_move(*guests)
        await self._ports.end(ending)
        self._folders.match()
        # The collector need not check the guests' objects. Those of ended guests are in no cycle, and are freed without it.
        gc.freeze()
        warn(config, self._log)
        self._log.info("reloaded", added=len(opened), removed=len(ending), changed=changed, guests=len(self._ports))

    async def _plan(self, config: Config) -> _Plan:
        plan = _Plan()
        wanted = {guest.name: guest for guest in config.guests}
        async for served in in_slices(self._ports.all):
            name = served.config.name
            new = wanted.get(name) or self._folders.found(name, config)
            if new is not None and new.address == served.config.address:
                plan.staying.append((served, new))
                wanted.pop(name, None)
            else:
                plan.ending.append(served)
        plan.opening.extend(wanted.values())
        addresses = set()
        async for guest in in_slices(plan.opening):
            addresses.add(guest.address)
        plan.by_address.update(
            (each.config.address, each) for each in plan.ending if each.open and each.config.address in addresses
        )
        return plan

    def _read_checked(self) -> tuple[Config, tuple[str, ...]]:
        """Read the configuration, without changes that need a restart, and check it as at a start.

        Returns:
            The configuration, and the names of the settings that need a restart.

        Raises:
            VhostcommError: it can't be read or served.
        """
        assert self._read
        config, old = self._read(), self.config
        keys = [name for name, value in attrs.asdict(config.service).items() if value != getattr(old.service, name)]
        if "socket_group" in keys:
            group_id(config.service.socket_group, config.service_sources.get("socket_group", "socket_group"))
        for folder in set(config.watch) - set(old.watch):
            WatchedFolder(folder).close()
        if config.watch != old.watch:
            keys.append("watch")
        made = attrs.evolve(
            config,
            service=old.service,
            service_sources=old.service_sources,
            watch=old.watch,
            watch_sources=old.watch_sources,
        )
        try:
            check(made)
        except ConfigError as error:
            raise ConfigError(*(f"{each}; a change of [serve] needs a restart" for each in error.reasons)) from None
        _ = made.warnings  # made here, in the thread
        if keys:
            self._log.warning(
                "changed settings need a restart; guests and identities are active now", keys=", ".join(keys)
            )
        return made, tuple(keys)


async def _read_in_thread(read: Callable[[], T]) -> T:
    """Read the configuration while guests are served.

    Raises:
        VhostcommError: it can't be read in time, or is invalid.
    """
    try:
        with short_turns(), trio.fail_after(READ_DEADLINE):
            # Each kind of read is a place: reads of one that hang keep no thread from the other, or from other tasks.
            return await in_thread(read, read)
    except trio.TooSlowError:
        raise ServeError(
            f"the configuration could not be read within {READ_DEADLINE:.0f} s: check whether its file system hangs"
        ) from None


@contextmanager
def without_collections() -> Iterator[None]:
    """Disable garbage collections while many lasting objects are made and guests are served.

    The collector stops everything while it checks all objects. Those of 10,000 guests take 0.3 s of processor time,
    again and again while they are made, and once more at the end of the block unless they are frozen in it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def warn(config: Config, log: Log) -> None:
    """Log settings that are valid but probably mistakes."""
    for warning in config.warnings:
        log.warning("probable mistake in the configuration", why=warning)
