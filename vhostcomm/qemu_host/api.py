"""The HTTP API of qemu-host, as existing scripts expect it.

============================== ==========================================================
``/read?command=N[&timeout=S]`` sends command N to the guest and waits for its answer
``/write?command=N``            the same without waiting
anything else                   the error ``No command specified``
============================== ==========================================================

Methods are GET and POST. A success has status 200, a failure 500. A request that is rejected before, such as one of a
web page, has its own status. Scripts cut the body as text, so spaces and the order of keys matter too.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import parse_qs

import trio
from attrs import define, field

from vchannel import Command, GuestCommand, MisuseError
from vhostcomm.channel.calls import URGENT, CallError, Outcome, by_number
from vhostcomm.control.admission import check_origin, peer_of
from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.problems import Problem
from vhostcomm.log.logs import Log
from vhostcomm.text import escape

if TYPE_CHECKING:
    from vhostcomm.control.connection import Receive, Scope, Send
    from vhostcomm.control.listener import HttpListener

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer if the request has no timeout."""

WRITE_GRACE: Final = 0.05
"""Seconds that /write waits, to report a command that fails at once."""

BIND_INTERVAL: Final = 1.0
"""Seconds before the API is served again after an internal error."""

Ask = Callable[[Command, float, str], Awaitable[bytes]]
"""Sends the guest a command for a client, with a timeout in seconds; returns its data or raises `CallError`."""

Notify = Callable[[Command, float, str], Awaitable[None]]
"""Sends the guest a command without waiting for an answer; raises `CallError` if it can't be sent."""

_URGENT: Final = frozenset(str(int(each)) for each in URGENT)
"""The `command` parameter of a request that may use the server's reserved slots."""

_NUMBER: Final = re.compile(r"\+?[0-9]{1,10}")
_NUMBER_MAX: Final = 2**31 - 1

# Valid in JSON, but harmful on a terminal: control characters, and marks that reverse text.
_HIDDEN: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# An escape in JSON; `half` is a surrogate without its other half.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)


class FailureError(Exception):
    """A request that fails; the message is for the body."""


def success(data: str) -> bytes:
    """Return the body of a success. `data` is JSON."""
    return f'{{"status": "success", "data": {data}, "message": null}}'.encode()


def failure(message: str) -> bytes:
    return f'{{"status": "error", "message": {quoted(message)}, "data": null}}'.encode()


def quoted(text: str) -> str:
    """Return text as a JSON string, without characters that control a terminal."""
    return _visible(json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False))


def embedded(data: bytes) -> str:
    """Return a guest's answer as JSON: an object or array as it is, other text as a string, blank text as null.

    Invalid UTF-8 and half of a surrogate pair become U+FFFD: one odd byte must not turn a document into a string.
    """
    for text in (data.partition(b"\0")[0], data.replace(b"\0", b"")):
        document = text.decode(errors="replace")
        if _is_document(document):
            # Hidden characters can only be inside a string of the document: JSON allows only spaces elsewhere.
            return _visible(_ESCAPE.sub(_whole, document))
    return quoted(document) if document.strip() else "null"


def _is_document(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _whole(escape: re.Match[str]) -> str:
    return "\\ufffd" if escape["half"] else escape[0]


def _visible(encoded: str) -> str:
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded)


@define(eq=False)
class QemuHostApi:
    """The application.

    Args:
        ask: sends the guest a command and waits for the answer.
        notify: sends the guest a command without an answer.
        log: for reasons that the few error messages of the API lack.
        timeout: seconds to wait for an answer if the request has no timeout.
        names: allowed names in a Host header, see `own_names`; None for any.
        allow_dangerous: allow commands that can lose data, settings or a secret.
    """

    headers = ()

    _ask: Ask
    _notify: Notify
    _log: Log
    _timeout: float
    _names: Collection[str] | None
    _allow_dangerous: bool
    _nursery: trio.Nursery = field(init=False)
    _client_log: ClientLog = field(init=False)

    async def serve(self, listener: HttpListener) -> None:
        """Serve until cancelled; restart after an internal error. The caller closes the listener."""
        # In a thread, since guests are already being served.
        await trio.to_thread.run_sync(importlib.import_module, "vhostcomm.control.server")
        from vhostcomm.control.server import serve_app

        while True:
            try:
                async with trio.open_nursery() as self._nursery:
                    self._client_log = ClientLog(self._log, self._nursery)
                    await serve_app(self, listener, self._log, self._client_log)
            except Exception:  # noqa: BLE001 - a client's request must not stop the guests' service
                self._log.exception("internal error in the API, restarting it; please report it")
            await trio.sleep(BIND_INTERVAL)

    def admit(self, scope: Scope) -> None:
        """Reject web pages, and methods other than GET and POST; see `Application`."""
        try:
            self._check(scope)
        except Problem as problem:
            self._client_log.warning("API request rejected", why=escape(problem.why), by=peer_of(scope))
            raise

    def _check(self, scope: Scope) -> None:
        check_origin(dict(scope["headers"]), self._names, browsers=False)
        if scope["method"] not in {"GET", "POST"}:
            why = f"the method {scope['method']} is not served"
            raise Problem(405, "refused", why, "use GET or POST", {"Allow": "GET, POST"})

    def is_urgent(self, scope: Scope) -> bool:
        """Return whether the request stops or thaws the guest."""
        return _value(scope, "command") in _URGENT

    def error(self, problem: Problem) -> bytes:
        """Return the body for a problem."""
        return failure(f"{problem.why}; {problem.remedy}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """The ASGI application."""
        try:
            body, status = success(await self._answer(scope)), 200
        except FailureError as error:
            body, status = failure(str(error)), 500
        except Exception:  # noqa: BLE001 - only this request fails
            self._log.exception("internal error in answering a request; please report it")
            body, status = failure("Internal error"), 500
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> str:
        """Return the answer's data as JSON."""
        path, command, who = scope["path"], _value(scope, "command"), f"qemu-host API: {peer_of(scope)}"
        if path not in ("/read", "/write") or not command:
            raise FailureError("No command specified")
        number = _number(command, 0, "command")
        seconds = self._timeout
        if path == "/read" and (wanted := _value(scope, "timeout")):
            seconds = float(_number(wanted, 1, "timeout"))
        if path == "/write":
            await self._write(number, who)
            return "null"
        with self._failing(number):
            data = await self._ask(self._command(number), seconds, who)
        if not data.strip(b"\0"):
            if number == GuestCommand.POWEROFF:
                return "null"
            raise FailureError(f"Received no data for command {number}")
        return embedded(data)

    async def _write(self, number: int, who: str) -> None:
        """Send a command. An immediate failure fails the request; a later one is logged."""
        failed: FailureError | None = None
        done = trio.Event()

        async def notify() -> None:
            nonlocal failed
            try:
                with self._failing(number):
                    await self._notify(self._command(number), self._timeout, who)
            except FailureError as error:
                failed = error
            done.set()

        self._nursery.start_soon(notify)
        with trio.move_on_after(WRITE_GRACE):
            await done.wait()
        if failed:
            raise failed

    def _command(self, number: int) -> Command:
        """Return the command with a number.

        Raises:
            MisuseError: the command is dangerous and not allowed.
        """
        command = by_number(number)
        if isinstance(command, GuestCommand) and command.dangerous and not self._allow_dangerous:
            raise MisuseError("it is dangerous, and --allow-dangerous is not set")
        return command

    @contextmanager
    def _failing(self, number: int) -> Iterator[None]:
        """Log why a command failed, and raise it as one of the API's few error messages."""
        try:
            yield
        except MisuseError as error:
            self._log.error("command not sent", command=number, why=str(error))
            raise FailureError(f"Failed sending command {number} to guest") from None
        except CallError as error:
            self._log.error("command not answered", command=number, why=str(error))
            raise FailureError(_message(error.outcome, number)) from None


def _number(text: str, least: int, what: str) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= _NUMBER_MAX:
        raise FailureError(f"Failed to parse {what}: {text}")
    return int(text)


def _message(outcome: Outcome, number: int) -> str:
    match outcome:
        case Outcome.NOT_CONNECTED | Outcome.NOT_READY | Outcome.PAUSED:
            return "No connection to guest"
        case Outcome.TIMED_OUT:
            return f"Timeout while reading command {number} from guest"
        case Outcome.LOST:
            return f"Failed reading command {number} from guest: guest disconnected"
        case Outcome.BUSY | Outcome.STOPPING:
            return f"Failed sending command {number} to guest"
    assert_never(outcome)


def _value(scope: Scope, name: str) -> str:
    """Return the first value of a request parameter; "" if it is missing."""
    query: str = scope["query_string"].decode("latin-1")
    return parse_qs(query, keep_blank_values=True).get(name, [""])[0]
