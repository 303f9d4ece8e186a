"""Reload: the configuration is read again and served, wholly or not at all."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import attrs
import trio
from attrs import field, frozen

from vhostcomm.channel.sockets import group_id
from vhostcomm.channel.watch import WatchedFolder
from vhostcomm.config.address import Address
from vhostcomm.config.load import check
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.daemon.descriptors import raise_descriptor_limit
from vhostcomm.daemon.folders import Folders
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.ports import Ports, Served, in_batches
from vhostcomm.errors import ConfigError, ServeError, VhostcommError
from vhostcomm.log.logs import Log

READ_DEADLINE: Final = 30.0
"""Seconds for reading the configuration. That of 10,000 guests takes a few; a file system that hangs takes for ever."""

SWITCH_INTERVAL: Final = 0.0002
"""Seconds that a thread runs before another gets its turn, while the configuration is read; Python's default is 0.005."""

RETRY_FIRST: Final = 2.0
RETRY_MAX: Final = 60.0
"""Seconds before a configuration that could not be served is tried again: doubled each time up to the most."""

NO_FILE: Final = "there is no --config file"


class _Turn:
    """One reload, for those who wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.why_not = ""
        """Why the configuration stays as it was; empty if the new one is active."""


@frozen
class _Plan:
    """What a new configuration changes."""

    opening: list[GuestConfig] = field(factory=list)
    """New guests, and guests with a new address."""
    ending: list[Served] = field(factory=list)
    staying: list[tuple[Served, GuestConfig]] = field(factory=list)
    by_address: dict[Address, Served] = field(factory=dict)
    """Those that end, by their addresses: a guest that gets one of these takes the socket over."""


class Reload:
    """Reads the configuration again, and serves by it: checked, opened, changed, and only then what was before is closed.

    Where any of it fails, nothing has changed.

    Args:
        config: what is in force.
        read: reads the configuration; None if it can't change.
        ports: the ports that run.
        folders: the guests in watched folders.
        freezer: thaws a guest that is owed it before it ends.
        around: is entered around each reload that was asked for.
        changed: is called when `why_not` may have changed.
        log: where to tell.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config] | None,
        ports: Ports,
        folders: Folders,
        *,
        freezer: Freezer,
        around: Callable[[], AbstractContextManager[None]],
        changed: Callable[[], None],
        log: Log,
    ) -> None:
        self.config = config
        self.why_not = ""
        """Why the last reload was rejected; empty if it wasn't."""
        self._read = read
        self._ports = ports
        self._folders = folders
        self._freezer = freezer
        self._around = around
        self._changed = changed
        self._log = log
        self._asked = trio.Event()
        self._turn = _Turn()
        self._again: Config | None = None

    def ask(self) -> None:
        """Have it reloaded soon."""
        self._asked.set()

    async def wait(self) -> str:
        """Have it reloaded. Returns why the old configuration stays active; empty if the new one is.

        Who doesn't wait any longer doesn't end the reload.
        """
        turn = self._turn
        self.ask()
        await turn.done.wait()
        return turn.why_not

    async def run(self) -> None:
        """Reload when asked to, and try again what could not be served, until cancelled."""
        pause = RETRY_FIRST
        while True:
            with trio.move_on_after(pause if self._again else float("inf")):
                await self._asked.wait()
            if not self._asked.is_set():
                pause = min(2 * pause, RETRY_MAX)
                await self._try_again()
                continue
            self._asked, turn, self._turn = trio.Event(), self._turn, _Turn()
            pause = RETRY_FIRST
            with self._around(), without_collections():
                turn.why_not = await self._reload()
            turn.done.set()

    async def _reload(self) -> str:
        self._again = None
        if self._read is None:
            self._log.warning("nothing to reload: there is no --config file")
            return NO_FILE  # nothing is wrong with what is served
        try:
            config = await _read_in_thread(self._read_checked)
        except VhostcommError as error:
            self._log.error("reload rejected, the old configuration stays", why=str(error))
            return self._rejected(str(error))
        except Exception:  # noqa: BLE001 - whatever a file can bring about, it mustn't end what is served
            self._log.exception("internal error in reading the configuration, the old one stays; please report it")
            return self._rejected("an internal error; the log has it")
        return await self._serve(config)

    async def _try_again(self) -> None:
        if self._again:
            with without_collections():
                await self._serve(self._again, again=True)

    async def _serve(self, config: Config, *, again: bool = False) -> str:
        try:
            await self._change(config)
        except VhostcommError as error:
            self._again = config
            if not again or str(error) != self.why_not:
                self._log.error(
                    "reload rejected, the old configuration stays", why=str(error), next="it is tried again"
                )
            return self._rejected(str(error))
        except Exception:  # noqa: BLE001 - nor must a mistake of ours
            self._again = None
            self._log.exception("internal error in a reload; please report it")
            return self._rejected("an internal error; the log has it")
        self._again = None
        return self._rejected("")

    def _rejected(self, why: str) -> str:
        self.why_not = why
        self._changed()
        return why

    async def _change(self, config: Config) -> None:
        raise_descriptor_limit(config, self._log)
        plan = await self._plan(config)
        # Nothing is changed before all that is new is open: until here it can fail.
        opened = await self._ports.open_all(plan.opening, config.host, frozenset(plan.by_address))
        try:
            async with trio.open_nursery() as thawing:
                for served in plan.ending:
                    thawing.start_soon(self._freezer.thaw_first, served.port.guest, "it is not served any longer")
        except BaseException:
            await self._ports.discard(opened)
            raise
        self.config, self._ports.host = config, config.host
        known = {guest.name for guest in config.guests}
        changed = 0
        async for served, new in in_batches(plan.staying):
            changed += self._ports.change(served, new, config.host)
            served.folder = served.folder if new.name not in known else None
        ending = list(plan.ending)
        before_by_name = {each.config.name: each.port.guest for each in ending}
        async for served in in_batches(opened):
            if moved := before_by_name.get(served.config.name):
                self._freezer.hand_over(moved, served.port.guest)
            if old := plan.by_address.get(served.config.address):
                served.port.take_over(old.port)
            # One that was found in a folder meanwhile.
            if (before := self._ports.get(served.config.name)) and before not in plan.ending:
                ending.append(before)
            self._ports.start(served)
        await self._ports.end(ending)
        self._folders.match()
        if ending:
            gc.unfreeze()  # what a start has frozen: what ended may be in cycles of references
        warn(config, self._log)
        self._log.info("reloaded", added=len(opened), removed=len(ending), changed=changed, guests=len(self._ports))

    async def _plan(self, config: Config) -> _Plan:
        plan = _Plan()
        wanted = {guest.name: guest for guest in config.guests}
        async for served in in_batches(self._ports.all):
            name = served.config.name
            new = wanted.get(name) or self._folders.found(name, config)
            if new is not None and new.address == served.config.address:
                plan.staying.append((served, new))
                wanted.pop(name, None)
            else:
                plan.ending.append(served)
        plan.opening.extend(wanted.values())
        addresses = {guest.address for guest in plan.opening}
        plan.by_address.update(
            (each.config.address, each) for each in plan.ending if each.open and each.config.address in addresses
        )
        return plan

    def _read_checked(self) -> Config:
        assert self._read
        return self._in_force(self._read())

    def _in_force(self, config: Config) -> Config:
        """A new configuration with what only a start can change as it is, checked as at a start.

        Raises:
            VhostcommError: it can't be served.
        """
        old = self.config
        keys = [name for name, value in attrs.asdict(config.service).items() if value != getattr(old.service, name)]
        if "socket_group" in keys:
            group_id(config.service.socket_group)
        for folder in set(config.watch) - set(old.watch):
            with WatchedFolder(folder):
                pass
        if config.watch != old.watch:
            keys.append("watch")
        made = attrs.evolve(config, service=old.service, watch=old.watch, service_sources=old.service_sources)
        try:
            check(made)
        except ConfigError as error:
            raise ConfigError(f"{error}; what [serve] says is in force until a restart") from None
        if keys:
            self._log.warning("this takes effect at the next start; guests and identities do now", keys=", ".join(keys))
        return made


async def _read_in_thread(read: Callable[[], Config]) -> Config:
    """Read the configuration while guests are answered.

    Raises:
        VhostcommError: it can't be read in time, or has a mistake.
    """
    interval = sys.getswitchinterval()
    try:
        # The event loop takes its turns between the thread's; a guest waits some of them for its answer.
        sys.setswitchinterval(SWITCH_INTERVAL)
        with trio.fail_after(READ_DEADLINE):
            return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except trio.TooSlowError:
        raise ServeError(
            f"the configuration could not be read within {READ_DEADLINE:.0f} s: look whether its file system hangs"
        ) from None
    finally:
        sys.setswitchinterval(interval)


@contextmanager
def without_collections() -> Iterator[None]:
    """Make many objects that stay, with guests answered meanwhile.

    Python's collector stops everything while it looks at all objects, and looks at those of 10,000 guests for 0.3 s of
    processor time, again and again while they are made.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def warn(config: Config, log: Log) -> None:
    """Log what is served as it stands, and hardly meant."""
    for warning in config.warnings:
        log.warning("look at the configuration", why=warning)
