"""The application for the server: it checks who asks, and lets the API answer."""

from __future__ import annotations

from contextlib import nullcontext

from starlette.types import ASGIApp, Receive, Scope, Send

from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.control.admission import check_origin, has_token, own_names, peer_of
from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.pending import PendingAnswers
from vhostcomm.control.problems import Problem
from vhostcomm.control.serialize import encode
from vhostcomm.text import escape


class ControlApp:
    """The application for the server, with the checks of a request's head.

    `address` is the server's own, `pending` counts the requests, and `client_log` logs rejected ones. Every client needs
    the token, unless that is empty.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self, app: ASGIApp, address: Listen | ListenTcp, pending: PendingAnswers, client_log: ClientLog, token: str
    ) -> None:
        self._app = app
        self._pending = pending
        self._client_log = client_log
        self._token = token.encode()
        self._names = own_names(address)

    def admit(self, scope: Scope) -> None:
        """Reject pages of other sites, and clients without the token.

        Raises:
            Problem: the request is rejected; has the reason, but never the token.
        """
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        try:
            check_origin(dict(scope["headers"]), self._names)
        except Problem as problem:
            self._client_log.warning("control request rejected", why=escape(problem.why), by=peer_of(scope))
            raise
        if has_token(shown, self._token):
            return
        self._client_log.warning("control token rejected", why="wrong" if shown else "missing", by=peer_of(scope))
        raise Problem(
            401,
            "not allowed",
            "the token is missing or wrong",
            "set VHOSTCOMM_CONTROL_TOKEN to the daemon's (over HTTP: the header Authorization: Bearer TOKEN)",
            {"WWW-Authenticate": "Bearer"},
        )

    def is_urgent(self, scope: Scope) -> bool:
        """Return whether the request stops or thaws a guest."""
        return scope["method"] == "POST" and scope["path"].rpartition("/")[2] in {"shutdown", "reboot", "thaw"}

    def error(self, problem: Problem) -> bytes:
        """Return the body for a problem."""
        return encode(problem.document())

    def answer(self, scope: Scope) -> ASGIApp:  # noqa: ARG002 - the page's own differs by it
        """Return what answers an admitted request."""
        return self._app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A stopping daemon waits for the answer, unless it is a stream."""
        with self._pending.answering() if scope["path"] != "/events" else nullcontext():
            await self.answer(scope)(scope, receive, send)
