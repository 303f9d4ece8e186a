"""The client of a running daemon's control surface."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from vhostcomm import __version__
from vhostcomm.address import Listen, ListenTcp
from vhostcomm.errors import VhostcommError

MARGIN: Final = 10.0
"""Seconds beyond what a request itself may take."""

_MISTAKES: Final = {400, 403, 404, 413, 422}
"""Statuses of requests that were wrong before anything was done."""


class ControlError(VhostcommError):
    """A daemon that can't be reached, or doesn't do what is asked. `status` is HTTP's, 0 without one."""

    def __init__(self, what: str, status: int = 0) -> None:
        self.status = status
        self.exit_code = 2 if status in _MISTAKES else 1
        super().__init__(what)


class DaemonGoneError(ControlError):
    """The daemon ended, or closed the connection, before it answered."""


class Client:
    """Asks a running daemon.

    Args:
        where: its control surface.
        token: for one over TCP.
        verb: what it is used for, for the daemon's log.
        margin: seconds beyond what a request itself may take.
    """

    def __init__(self, where: Listen | ListenTcp, token: str = "", verb: str = "", *, margin: float = MARGIN) -> None:
        self.where = where
        unix = isinstance(where, Listen)
        headers = {"User-Agent": f"vhostcomm/{__version__} {verb} by {_user()}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        host = "vhostcomm" if isinstance(where, Listen) else str(where).removeprefix("tcp:")
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(where.path)) if isinstance(where, Listen) and unix else None,
            base_url=f"http://{host}",
            headers=headers,
            timeout=margin,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """What is at a path.

        Raises:
            ControlError: it isn't had; says why and what to do.
        """
        with self._told():
            return _result(self._http.get(path))

    def post(self, path: str, body: dict[str, Any] | None = None, *, takes: float = MARGIN) -> Any:
        """Have something done, which may take so many seconds.

        Raises:
            ControlError: it isn't done; says why and what to do.
        """
        with self._told():
            return _result(self._http.post(path, json=body or {}, timeout=takes + MARGIN))

    def guest(self, name: str, verb: str = "") -> str:
        """A guest's path."""
        return f"/guests/{quote(name, safe='')}" + (f"/{verb}" if verb else "")

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens, from now on. An empty one comes first, when it has begun, and from time to time.

        Raises:
            ControlError: it can't be had, or has ended.
        """
        with self._told(), self._http.stream("GET", "/events", timeout=httpx.Timeout(MARGIN, read=60.0)) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                _result(response)
            name = ""
            for line in response.iter_lines():
                if line.startswith(":"):
                    yield {}
                elif line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield {"event": name} | json.loads(line.removeprefix("data: "))
        raise DaemonGoneError(f"{self.where}: the daemon has ended")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ControlError(f"no daemon to ask: {self.where}: {_why(error)}; {_remedy(error)}") from None
        except (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError):
            raise DaemonGoneError(
                f"{self.where}: the daemon went away before it answered, so what became of it is not known; see its log"
            ) from None
        except httpx.TimeoutException:
            raise ControlError(
                f"{self.where}: the daemon does not answer; is it stopped (SIGSTOP), or the machine very busy?"
            ) from None
        except httpx.HTTPError as error:
            raise ControlError(f"{self.where}: {error}") from None


def _why(error: Exception) -> str:
    text = str(error)
    return text.partition("] ")[2] or text


def _remedy(error: Exception) -> str:
    if "Permission denied" in str(error):
        return "ask as the user that the daemon runs as, or with sudo"
    if "temporarily unavailable" in str(error):
        return "it is busy: try again"
    return "start it (vhostcomm serve, vhostcomm run), or say where it listens with --control; its log tells"


def _result(response: httpx.Response) -> Any:
    try:
        document = response.json()
    except ValueError:
        raise ControlError(f"that is no vhostcomm: it answers {response.status_code} without JSON") from None
    if response.is_success or "error" not in document:
        return document
    error = document["error"]
    raise ControlError(f"{error['what']}: {error['why']}; {error['remedy']}", response.status_code)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "a user without a name"
