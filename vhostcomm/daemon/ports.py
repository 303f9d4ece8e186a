"""The ports of a daemon: open, start and end them, and open them again after an internal error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.throttle import Lane
from vhostcomm.channel.watch import SocketFiles
from vhostcomm.config.address import Address
from vhostcomm.config.collecting import KEPT
from vhostcomm.config.identity import HostIdentity
from vhostcomm.config.models import GuestConfig, Service
from vhostcomm.control.listener import HttpListener
from vhostcomm.daemon.opening import Opening, ServedPort, discard, make_runtime_directory
from vhostcomm.errors import ServeError
from vhostcomm.linux.threads import in_slices, in_thread, made_in_thread, short_turns
from vhostcomm.log.logs import Log

STOP_MARGIN: Final = 1.0
"""Seconds beyond the drain timeout after which an ending port is cancelled."""

REOPEN_PAUSE: Final = 1.0
REOPEN_MAX: Final = 60.0
"""Seconds before a port that failed internally is opened again: doubled up to this maximum."""

OPEN_DEADLINE: Final = 30.0
"""Seconds for a batch of ports to open. Only a hanging file system needs longer."""

RECHECK_INTERVAL: Final = 5.0
"""Seconds between checks of a socket that can't be bound again, for example because its directory is gone."""

BATCH: Final = 64
"""Ports that a thread opens at once."""

MakeGuest = Callable[[GuestConfig, HostIdentity, Log], Guest]


async def _all_ended(ending: Iterable[ServedPort]) -> None:
    for served in ending:
        if not served.ended.is_set():  # a wait for a set event costs a turn of the event loop
            await served.ended.wait()


def _check(problems: Sequence[Exception]) -> None:
    if problems:
        kind = next((type(each) for each in problems if isinstance(each, ServeError)), ServeError)
        reasons = list(dict.fromkeys(map(str, problems)))  # all guests in a missing directory have the same
        raise kind(*reasons[:KEPT], more=len(reasons[KEPT:]))


@define(eq=False)
class _Http:
    """A socket for HTTP; its file is watched as those of guests are."""

    port: HttpListener
    open: bool = True
    why_not: str = ""
    looking: trio.Lock = field(factory=trio.Lock)


class Ports:
    """Every guest's port, by the guest's name.

    Args:
        service: the ports' settings, which never change.
        host: the host's identity; `reload` changes it.
        make_guest: makes a guest of its configuration.
        adopt: takes over the debt that an earlier daemon left for a guest; called in a thread.
    """

    def __init__(
        self, service: Service, host: HostIdentity, make_guest: MakeGuest, adopt: Callable[[Guest], None], log: Log
    ) -> None:
        self._service = service
        self._make_guest = make_guest
        self._adopt = adopt
        self._log = log
        self._served: dict[str, ServedPort] = {}
        self._guests: dict[str, Guest] | None = None
        """Made on demand, and again after a change."""
        self._by_path: dict[Path, ServedPort | _Http] = {}
        self.files = SocketFiles(log)
        """Watches the directories of our own sockets."""
        self._lane = Lane()
        self.host = host
        self.nursery: trio.Nursery | None = None
        """Where ports run."""

    def __len__(self) -> int:
        return len(self._served)

    @property
    def all(self) -> list[ServedPort]:
        return list(self._served.values())

    def get(self, name: str) -> ServedPort | None:
        return self._served.get(name)

    @property
    def guests(self) -> dict[str, Guest]:
        """All served guests, by name. A change makes another dictionary."""
        if self._guests is None:
            self._guests = {name: served.port.guest for name, served in self._served.items()}
        return self._guests

    async def open_all(
        self, configs: Iterable[GuestConfig], host: HostIdentity, taken_over: frozenset[Address] = frozenset()
    ) -> list[ServedPort]:
        """Open all of the ports, or none. They don't run yet; other guests are served meanwhile.

        Args:
            configs: of the guests.
            host: the host's identity for their answers.
            taken_over: addresses that are already bound; `Port.take_over` moves their sockets.

        Raises:
            ServeError: some ports can't be opened; says which and why.
        """
        opened: list[ServedPort] = []
        problems: list[Exception] = []
        try:
            batch: list[ServedPort] = []
            async for config in in_slices(configs):
                batch.append(ServedPort(config, self._port(config, host)))
                if len(batch) == BATCH:
                    problems += await self._open(batch, taken_over)
                    opened, batch = opened + batch, []
            problems += await self._open(batch, taken_over)
            opened += batch
            _check(problems)
        except BaseException:
            await self.discard(opened)
            raise
        return opened

    async def _open(
        self, batch: Sequence[ServedPort], taken_over: frozenset[Address] = frozenset()
    ) -> Sequence[Exception]:
        """Open all ports of a batch, or none. Return why some can't be opened."""
        opening = Opening(batch, self._service, self.files, self._adopt, taken_over)
        try:
            with trio.fail_after(OPEN_DEADLINE), short_turns():
                place = frozenset(each.path and each.path.parent for each in batch)
                problems = await made_in_thread(place, opening.run, lambda _: discard(batch))
        except trio.TooSlowError:
            names = ", ".join(each.config.name for each in batch if not each.open)
            raise ServeError(
                f"the sockets or recordings of {names} took more than {OPEN_DEADLINE:.0f} seconds to make: "
                "check whether their file system hangs"
            ) from None
        finally:
            opening.given_up = True
        if problems:
            await self.discard(batch)
        return problems

    async def discard(self, opened: Sequence[ServedPort]) -> None:
        """Close ports that were opened but will not run."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + OPEN_DEADLINE):
            await trio.to_thread.run_sync(discard, opened, abandon_on_cancel=True)

    def _port(self, config: GuestConfig, host: HostIdentity) -> Port:
        return Port(self._make_guest(config, host, self._log.bind(guest=config.name)), self._service, self._lane)

    def start(self, served: ServedPort) -> None:
        """Run a port."""
        assert self.nursery is not None
        self._served[served.config.name] = served
        self._guests = None
        if served.path:
            self._by_path[served.path] = served
        self.nursery.start_soon(self._run, served)
        self._watch(served)

    def start_found(self, config: GuestConfig, folder: Path) -> None:
        """Open and run the port of a guest that was found in a directory; retry on failure."""
        self.start(ServedPort(config, self._port(config, self.host), folder))

    async def end(self, ending: Iterable[ServedPort]) -> None:
        """End ports: accept no connections, answer pending questions, close. Limited in time."""
        if not (ending := list(ending)):
            return
        async for served in in_slices(ending):
            self._forget_path(served)  # nobody misses its file from now on
        async for served in in_slices(ending):
            served.port.stop()
        with trio.move_on_after(self._service.drain_timeout + STOP_MARGIN):
            await _all_ended(ending)
        for served in ending:
            served.scope.cancel()
        await _all_ended(ending)

    def change(self, served: ServedPort, new: GuestConfig, host: HostIdentity) -> bool:
        """Apply a new configuration with the same address to a guest. Return whether its answers have changed."""
        guest = served.port.guest
        changed = new.identity != served.config.identity or host != guest.host
        if changed:
            guest.change(host, new.identity)
        other_monitor = new.qmp != served.config.qmp
        served.config = new
        if other_monitor:
            served.monitor_scope.cancel()
            guest.machine_resumed()  # its QMP socket has changed, so a pause is no longer known
            self._watch(served)
        return changed

    def _watch(self, served: ServedPort) -> None:
        """Connect to the QMP socket of a guest's QEMU, if it is configured."""
        assert self.nursery is not None
        served.monitor, served.monitor_scope = None, trio.CancelScope()
        if served.config.qmp:
            from vhostcomm.daemon.monitor_evidence import follow  # only this needs the package qemu

            served.monitor, run = follow(served.config.qmp, lambda: served.port.guest, served.monitor_scope)
            self.nursery.start_soon(run)

    def keep(self, listener: HttpListener) -> None:
        """Watch this HTTP socket too, to bind it again if its file is deleted."""
        if listener.path:
            self._by_path[listener.path] = _Http(listener)
            self.files.add(listener.path.parent)

    async def keep_sockets(self) -> None:
        """Bind sockets again whose files were deleted or replaced, until cancelled."""
        async with trio.open_nursery() as nursery:  # a hanging path must not delay the others
            async for paths in self.files.lost():
                async for path in in_slices(list(self._by_path) if paths is None else paths):
                    if path in self._by_path:
                        nursery.start_soon(self._look_at, path)

    async def _look_at(self, path: Path) -> None:
        if served := self._by_path.get(path):
            async with served.looking:
                while self._by_path.get(path) is served and served.open:
                    if await in_thread(path.parent, served.port.is_reachable) or await self._bind_again(path, served):
                        return
                    await trio.sleep(RECHECK_INTERVAL)

    async def _bind_again(self, path: Path, served: ServedPort | _Http) -> bool:
        """Bind a socket again. Return False if that failed, and no event will announce when it can succeed."""
        log = self._log.bind(sock=str(path))
        if isinstance(served, ServedPort):
            log = log.bind(guest=served.config.name)
        try:
            await in_thread(path.parent, make_runtime_directory, path.parent, self._service)
            await served.port.bind_again()
        except (ServeError, OSError) as error:
            if served.why_not != str(error):
                if isinstance(served, ServedPort):
                    log.error("socket file deleted or replaced, QEMU can't connect", why=str(error))  # noqa: TRY400
                else:
                    log.error("socket file deleted or replaced, clients can't connect", why=str(error))  # noqa: TRY400
            served.why_not = str(error)
            return await in_thread(path.parent, served.port.is_occupied)  # then its deletion causes the next event
        served.why_not = ""
        await in_thread(path.parent, self.files.add, path.parent)
        log.warning("socket file deleted or replaced, bound again")
        return True

    async def _run(self, served: ServedPort) -> None:
        name, pause = served.config.name, REOPEN_PAUSE
        try:
            with served.scope:
                while True:
                    if await self._try_open(served):
                        pause = REOPEN_PAUSE
                        try:
                            await served.port.run()
                        except Exception:
                            log = self._log.bind(guest=name)
                            log.exception("internal error, reopening the port; please report it")
                        else:
                            return
                        served.open = False
                    await trio.sleep(pause)
                    pause = min(2 * pause, REOPEN_MAX)
                    served.port = self._port(served.config, self.host)
                    self._guests = None
        finally:
            served.monitor_scope.cancel()
            served.monitor = None  # it refers to what is served: nothing would free a cycle
            if self._served.get(name) is served:
                del self._served[name]
                self._guests = None
            self._forget_path(served)
            served.ended.set()

    def _forget_path(self, served: ServedPort) -> None:
        if served.path and self._by_path.get(served.path) is served:
            del self._by_path[served.path]

    async def _try_open(self, served: ServedPort) -> bool:
        if served.open:
            return True
        try:
            _check(await self._open([served]))
        except ServeError as error:
            if served.why_not != str(error):
                self._log.error("guest not served, retrying", guest=served.config.name, why=str(error))
            served.why_not = str(error)
            return False
        served.why_not = ""
        return True
