"""The control surface: its socket, and when to import, serve and end it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from vhostcomm.channel.sockets import group_id, make_folder
from vhostcomm.config.address import Listen, ListenTcp, runtime_directory
from vhostcomm.config.http_address import CONTROL_FOLDER, ListenTls, control_address, own_control_places
from vhostcomm.config.models import Service
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.control.listener import HttpListener
from vhostcomm.control.pending import PendingAnswers
from vhostcomm.errors import ServeError
from vhostcomm.linux.threads import short_turns
from vhostcomm.log.logs import Log

if TYPE_CHECKING:
    import ssl

    from vhostcomm.control.client_log import ClientLog
    from vhostcomm.control.connection import Application

CLOSE_TIMEOUT: Final = 1.0
"""Seconds at the end to complete pending answers."""

BIND_INTERVAL: Final = 5.0
"""Seconds before the surface is served again after an internal error."""


class Surface:
    """A daemon's control surface.

    `own` is the name of a separate socket without `--control`, for one of many launchers.
    """

    def __init__(self, daemon: DaemonApi, service: Service, log: Log, own: str = "") -> None:
        self._own = own
        self._daemon = daemon
        self._service = service
        self._log = log
        self.listener: HttpListener | None = None
        """The listener, if there is one."""
        self.address: Listen | ListenTcp | None = None
        self.pending = PendingAnswers()
        """Also of other servers: `finish` waits for all of them."""

    def listen(self, cleanup: ExitStack) -> None:
        """Bind the socket until the end of `cleanup`. If no default address is free, run without a control surface.

        Raises:
            ServeError: the requested address can't be bound.
        """
        try:
            self._bind(cleanup)
        except (ServeError, ValueError) as error:
            if self._service.control:
                kind = type(error) if isinstance(error, ServeError) else ServeError
                raise kind(f"the control surface: {error}") from None
            self._log.warning("no control surface", why=str(error), remedy="choose its place with --control")

    def _bind(self, cleanup: ExitStack) -> None:
        """Bind the requested address, or the first free default."""
        if self._service.control:
            places = [control_address(self._service.control)]
        else:
            make_folder(runtime_directory(), group_id(self._service.socket_group))
            name = self._own or next((each.name for each in self._daemon.config.guests), "guests")
            places = [*([] if self._own else [control_address("")]), *own_control_places(name)]
        for place in places:
            if place is None:
                return
            try:
                if isinstance(place, Listen) and place.path.parent.name == CONTROL_FOLDER and not self._service.control:
                    make_folder(place.path.parent)
                context = self._context() if isinstance(place, ListenTls) else None
                self.listener = HttpListener(place)
                self.listener.tls = context
                cleanup.callback(self.listener.close)
            except ServeError:
                if place is places[-1]:
                    raise
            else:
                self.address = place
                return

    def _context(self) -> ssl.SSLContext:
        from vhostcomm.config.certificates import server_context

        service = self._service
        return server_context(*map(Path, (service.control_ca, service.control_cert, service.control_key)))

    @property
    def has_tls(self) -> bool:
        """Whether clients need a certificate."""
        return isinstance(self.address, ListenTls)

    def read_again(self) -> Callable[[], None]:
        """Read the files of TLS again, and return a function that puts them to use. May block.

        Raises:
            ServeError: one of them can't be used.
        """
        try:
            context = self._context()
        except ServeError as error:
            raise type(error)(f"the control surface: {error}") from None

        def use() -> None:
            assert self.listener
            self.listener.tls = context

        return use

    async def run(self) -> None:
        """Serve, until cancelled. HTTP is imported only for the first client: most daemons have none."""
        if self.listener is None or self.address is None:
            return
        address = self.address
        self._log.info("control surface listening", sock=str(address))

        def make(client_log: ClientLog) -> Application:
            from vhostcomm.control.api import make_api
            from vhostcomm.control.app import ControlApp

            token = self._service.control_token if type(address) is ListenTcp else ""
            return ControlApp(make_api(self._daemon), address, self.pending, client_log, token)

        await serve_on_demand(self.listener, self._log, make)

    async def finish(self) -> None:
        """Complete pending answers, within a time limit."""
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self.pending.completed()


async def serve_on_demand(listener: HttpListener, log: Log, make: Callable[[ClientLog], Application]) -> None:
    """Serve a listener until cancelled, from its first client on. `make` gets the log for rejected requests."""
    while True:
        try:
            await trio.lowlevel.wait_readable(listener.sock)
        except trio.ClosedResourceError:  # bound again
            continue
        try:
            with short_turns():
                await trio.to_thread.run_sync(_import)
            from vhostcomm.control.client_log import ClientLog
            from vhostcomm.control.server import serve_app

            async with trio.open_nursery() as counting:
                client_log = ClientLog(log, counting)
                await serve_app(make(client_log), listener, log, client_log)
        except Exception:
            log.exception("internal error in the control surface, restarting it; please report it")
        await trio.sleep(BIND_INTERVAL)


def _import() -> None:
    """Import the server in a thread, while guests are served."""
    for name in "api", "app", "server":
        importlib.import_module(f"vhostcomm.control.{name}")
