"""The web page's socket and links: the daemon's part of it, without HTTP."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from vhostcomm.channel.sockets import group_id, make_folder
from vhostcomm.config.address import ListenTcp, host_and_port, runtime_directory
from vhostcomm.config.http_address import web_address
from vhostcomm.config.models import Service
from vhostcomm.control.daemon_api import DaemonApi
from vhostcomm.control.listener import HttpListener
from vhostcomm.control.pending import PendingAnswers
from vhostcomm.control.sign_in import SignIn, kept_secret
from vhostcomm.control.surface import serve_on_demand
from vhostcomm.errors import ServeError
from vhostcomm.log.logs import Log

if TYPE_CHECKING:
    from vhostcomm.control.client_log import ClientLog
    from vhostcomm.control.connection import Application


class WebSurface:
    """A daemon's web page, if `web` is configured.

    With `by_hand`, the log goes to a terminal and gets a link. Logs that are kept get no key.
    """

    def __init__(
        self, daemon: DaemonApi, service: Service, pending: PendingAnswers, log: Log, *, by_hand: bool
    ) -> None:
        self._daemon = daemon
        self._service = service
        self._pending = pending
        self._log = log
        self._by_hand = by_hand
        self._listener: HttpListener | None = None
        self._sign_in: SignIn | None = None
        self._where = ""

    def listen(self, cleanup: ExitStack) -> None:
        """Bind the socket until the end of `cleanup`.

        Raises:
            ServeError: it can't be bound.
        """
        if not self._service.web:
            return
        address = web_address(self._service.web)
        try:
            self._listener = HttpListener(address)
        except ServeError as error:
            raise type(error)(f"the web page: {error}") from None
        cleanup.callback(self._listener.close)
        port = self._listener.sock.getsockname()[1]
        self._where = host_and_port(address.host, port)
        self._sign_in = SignIn(port, self._secret(port))

    async def run(self) -> None:
        """Serve, until cancelled. HTTP is imported only for the first client."""
        if self._listener is None or (sign_in := self._sign_in) is None:
            return
        address = self._listener.address
        assert isinstance(address, ListenTcp)
        if self._by_hand:
            self._log.info("web page listening", link=self._link(sign_in))
        else:
            self._log.info(
                "web page listening", url=f"http://{self._where}/", remedy="vhostcomm web prints a link to open it"
            )

        def make(client_log: ClientLog) -> Application:
            from vhostcomm.control.api import make_api
            from vhostcomm.control.web import WebApp

            return WebApp(make_api(self._daemon), address, self._pending, client_log, sign_in, self._log)

        await serve_on_demand(self._listener, self._log, make)

    def new_link(self, by: str) -> str | None:
        """Make a link with a one-time key; None without a web page."""
        if self._sign_in is None:
            return None
        self._log.info("web link made", by=by)
        return self._link(self._sign_in)

    def _link(self, sign_in: SignIn) -> str:
        return f"http://{self._where}/?key={sign_in.new_key()}"

    def _secret(self, port: int) -> bytes:
        """Return the secret that signs cookies: kept, so that open pages survive a restart, or a new one."""
        try:
            if state := os.environ.get("STATE_DIRECTORY"):
                folder = Path(state.partition(":")[0])
            else:
                folder = runtime_directory()
                make_folder(folder, group_id(self._service.socket_group))
            return kept_secret(folder / f".web-{port}.secret")
        except (OSError, ServeError, ValueError) as error:
            self._log.warning(
                "web sign-ins not kept", why=str(error), consequence="after a restart, every browser needs a new link"
            )
            return secrets.token_bytes()
