"""The client of a daemon's control surface."""

from __future__ import annotations

import getpass
import json
import shlex
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import OK as HTTP_OK
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import quote

from vhostcomm import __version__
from vhostcomm.config.address import Listen, ListenTcp, example_socket
from vhostcomm.config.http_address import CONTROL_FOLDER, CONTROL_NAME, TLS, ListenTls, control_folders, is_socket
from vhostcomm.config.ssh_address import Forwarded
from vhostcomm.errors import VhostcommError
from vhostcomm.linux.starting import attempts

MARGIN: Final = 10.0
"""Seconds beyond the time that a request itself may take."""

EVENTS_TIMEOUT: Final = 60.0
"""Seconds of silence after which a stream of events has failed: the daemon sends a comment every 15 seconds."""

_MISTAKES: Final = {400, 403, 404, 413, 422}
"""Statuses of requests that were rejected before any change."""


class ControlError(VhostcommError):
    """The daemon can't be reached, or rejects a request. `status` is HTTP's, 0 without one."""

    def __init__(self, what: str, status: int = 0) -> None:
        self.status = status
        self.exit_code = 2 if status in _MISTAKES else 1
        super().__init__(what)


class DaemonGoneError(ControlError):
    """The daemon ended or closed the connection before its answer."""


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("vhostcomm", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Sends requests to a daemon. Each request uses a separate connection, so threads may share a client.

    Args:
        where: the control surface.
        token: for a surface over TCP.
        verb: the purpose, for the daemon's log.
        margin: seconds beyond the time that a request itself may take.
        tls: for a surface with TLS; required there.
    """

    def __init__(
        self,
        where: Listen | ListenTcp | Forwarded,
        token: str = "",
        verb: str = "",
        *,
        margin: float = MARGIN,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.where = where
        self._tls = tls
        self._margin = margin
        self._headers = {"User-Agent": f"vhostcomm/{__version__} {verb} by {_user()}", "Connection": "close"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    @property
    def host(self) -> str:
        """The daemon's host, as the user named it; its address for one on this host."""
        return self.where.remote.destination if isinstance(self.where, Forwarded) else str(self.where).removeprefix(TLS)

    def get(self, path: str) -> Any:
        """Send a GET request.

        Raises:
            ControlError: it failed; says why and what to do.
        """
        with self._asked("GET", path, None, self._margin) as response:
            return _result(response)

    def post(self, path: str, body: dict[str, Any] | None = None, *, takes: float = MARGIN) -> Any:
        """Send a POST request, which may take `takes` seconds.

        Raises:
            ControlError: it failed; says why and what to do.
        """
        with self._asked("POST", path, body or {}, takes + MARGIN) as response:
            return _result(response)

    def guest(self, name: str, verb: str = "") -> str:
        """Return a guest's path."""
        return f"/guests/{quote(name, safe='')}" + (f"/{verb}" if verb else "")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events from now on. An empty one marks the beginning, and is repeated from time to time.

        Raises:
            ControlError: the stream failed or ended.
        """
        with self._asked("GET", "/events", None, EVENTS_TIMEOUT) as response:
            if response.status != HTTP_OK:
                _result(response)
            name = ""
            for line in map(bytes.decode, response):
                if line.startswith(":"):
                    yield {}
                elif line.startswith("event: "):
                    name = line.removeprefix("event: ").rstrip("\n")
                elif line.startswith("data: "):
                    yield {"event": name} | json.loads(line.removeprefix("data: "))
        raise DaemonGoneError(f"{self.where}: the daemon has ended")

    @contextmanager
    def _asked(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> Iterator[HTTPResponse]:
        """Send a request, and provide the response inside the block, where errors are translated."""
        with closing(self._connected(timeout)) as connection:
            headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
            try:
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                with connection.getresponse() as response:
                    yield response
            except TimeoutError:
                hint = (
                    f", or that is a guest's socket; the control socket is {CONTROL_NAME}"
                    if isinstance(self.where, Listen)
                    and self.where.path.name != CONTROL_NAME
                    and self.where.path.parent.name != CONTROL_FOLDER
                    else ""
                )
                raise ControlError(
                    f"{self.where}: the daemon does not answer: it is stopped (SIGSTOP), or the machine is very busy{hint}"
                ) from None
            except ssl.SSLError as error:  # the daemon may reject the certificate after the connection is there
                raise self._tls_failed(error) from None
            except (OSError, HTTPException):
                # ssh closes a connection to a socket that isn't there, as a daemon does that ends.
                missing = (
                    f"no daemon listens on {self.where.remote.path} there, or this user may not connect to it; otherwise, "
                    if isinstance(self.where, Forwarded)
                    else ""
                )
                raise DaemonGoneError(
                    f"{self.where}: {missing}the daemon ended before it answered, so the outcome is unknown; see its log"
                ) from None

    def _connected(self, timeout: float) -> HTTPConnection:
        """Connect to the daemon. If it is just starting, wait until it listens."""
        if isinstance(self.where, Forwarded) and self.where.why_not:
            raise ControlError(f"no daemon to ask: {self.where.why_not}")
        folders = [self.where.path.parent] if isinstance(self.where, Listen) else []
        for _ in attempts(*folders):
            connection = self._connection(timeout)
            try:
                connection.connect()
            except ssl.SSLError as error:
                connection.close()
                raise self._tls_failed(error) from None
            except OSError as error:
                connection.close()
                failed = error
                if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    break
            else:
                return connection
        raise ControlError(
            f"no daemon to ask: {self.where}: {failed.strerror or failed}; {self._remedy(failed)}"
        ) from None

    def _remedy(self, error: OSError) -> str:
        if isinstance(error, PermissionError):
            return "ask as the user that the daemon runs as, or with sudo"
        if isinstance(error, BlockingIOError | TimeoutError):
            return "it is busy: try again"
        if isinstance(self.where, ListenTcp):
            needs = "certificates" if isinstance(self.where, ListenTls) else "a token (VHOSTCOMM_CONTROL_TOKEN)"
            return f"start a daemon with --control {self.where} and {needs}, or correct the address"
        if isinstance(error, ConnectionRefusedError) and not is_socket(self.where.path):
            return "it is not a socket: correct the address"
        if isinstance(self.where, Listen) and self.where.path.parent not in control_folders():
            start = shlex.join(
                ["vhostcomm", "serve", "--control", str(self.where), "--sock", f"nas={example_socket('nas')}"]
            )
            return f"start a daemon there, such as {start}; or correct the address"
        return "start it (vhostcomm serve, vhostcomm run), or give its address with --control"

    def _tls_failed(self, error: ssl.SSLError) -> ControlError:
        from vhostcomm.config.certificates import explained

        assert isinstance(self.where, ListenTls)
        return ControlError(f"{self.where}: {explained(error, self.where.host)}")

    def _connection(self, timeout: float) -> HTTPConnection:
        if isinstance(self.where, Listen | Forwarded):
            return _UnixConnection(str(self.where.path), timeout)
        if isinstance(self.where, ListenTls):
            assert self._tls
            return HTTPSConnection(self.where.host, self.where.port, timeout=timeout, context=self._tls)
        return HTTPConnection(self.where.host, self.where.port, timeout=timeout)


def _result(response: HTTPResponse) -> Any:
    try:
        document = json.loads(response.read())
    except ValueError:
        raise ControlError(f"that is not vhostcomm: it answers {response.status} without JSON") from None
    if response.status == HTTP_OK or "error" not in document:
        return document
    error = document["error"]
    reasons = "".join(f"\n  {each}" for each in error.get("reasons", ()))
    raise ControlError(f"{error['what']}: {error['why']}; {error['remedy']}{reasons}", response.status)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "a user without a name"
