"""A served port, and the opening of a batch of ports in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from vhostcomm.channel.guest import Guest
from vhostcomm.channel.port import Port
from vhostcomm.channel.sockets import group_id, make_folder
from vhostcomm.channel.watch import SocketFiles
from vhostcomm.config.address import Address, Listen, runtime_directory
from vhostcomm.config.models import GuestConfig, Service
from vhostcomm.errors import ServeError

if TYPE_CHECKING:
    from vhostcomm.qemu.monitor import Monitor


@define(eq=False)
class ServedPort:
    """A port that runs or will run. `folder` is the watched directory of its socket, if any."""

    config: GuestConfig
    port: Port
    folder: Path | None = None
    open: bool = False
    why_not: str = ""
    looking: trio.Lock = field(factory=trio.Lock)
    """Held while the socket's file is checked and bound again."""
    monitor: Monitor | None = None
    monitor_scope: trio.CancelScope = field(factory=trio.CancelScope)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)

    @property
    def path(self) -> Path | None:
        """The path of its socket, if vhostcomm binds a unix socket."""
        return self.config.address.path if isinstance(self.config.address, Listen) else None


@define
class Opening:
    """A batch of ports that a thread opens."""

    batch: Sequence[ServedPort]
    service: Service
    files: SocketFiles
    adopt: Callable[[Guest], None]
    taken_over: frozenset[Address]
    given_up: bool = False
    """Set when nobody waits for the thread any longer: if it returns from a hanging call, it opens no more ports."""

    def run(self) -> list[Exception]:
        """Open the ports. Return why some of them can't be opened."""
        problems: list[Exception] = []
        for served in self.batch:
            if self.given_up:
                break
            folder = served.path and served.path.parent
            try:
                if folder:
                    make_runtime_directory(folder, self.service)
                    self._watch(folder, bound=False)  # before the socket's file can be deleted
                served.port.open(bind=served.config.address not in self.taken_over)
                served.open = True
                if folder:
                    self._watch(folder, bound=True)
                self.adopt(served.port.guest)
            except (ServeError, OSError, RuntimeError) as error:  # no socket, descriptor or thread
                problems.append(error)
            except BaseException:
                discard(self.batch)
                raise
        return problems

    def _watch(self, folder: Path, *, bound: bool) -> None:
        if folder not in self.files:
            self.files.add(folder, bound=bound)


def make_runtime_directory(folder: Path, service: Service) -> None:
    """Create the directory if it is the runtime directory; other directories are the operator's.

    Raises:
        ServeError: it can't be created, or is not safe to use.
    """
    try:
        ours = runtime_directory()
    except ValueError:
        return
    if folder == ours:
        make_folder(folder, group_id(service.socket_group))


def discard(opened: Iterable[ServedPort]) -> None:
    """Close ports that were opened but will not run. May block."""
    for served in opened:
        if served.open:
            served.open = False
            served.port.discard()
