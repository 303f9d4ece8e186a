"""The web page: its files, and the control surface's API, for browsers that have signed in."""

from __future__ import annotations

from html import escape as escape_html
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from vhostcomm.config.address import ListenTcp
from vhostcomm.control.admission import check_origin, check_own_page, peer_of
from vhostcomm.control.app import ControlApp
from vhostcomm.control.client_log import ClientLog
from vhostcomm.control.pending import PendingAnswers
from vhostcomm.control.problems import Problem
from vhostcomm.control.sign_in import SignIn
from vhostcomm.log.logs import Log
from vhostcomm.text import escape

HEADERS: Final = (
    # No inline script, nothing of another site, and no other page may show this one.
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
"""In every response. A guest's text is data even if a browser is made to open it."""

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_REMEDY: Final = "run `vhostcomm web` where the daemon runs, and open the link that it prints"

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>vhostcomm: {what}</title>
<main>
<h1>{what}</h1>
<p>{why}
<p>{remedy}
</main>
"""


_AS_PAGE: Final = {"Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8"}
"""Headers of a problem that a browser shows as a page."""


class WebApp(ControlApp):
    """The application for the page's server: the page, and the API for browsers that have signed in."""

    headers = HEADERS

    def __init__(
        self,
        app: ASGIApp,
        address: ListenTcp,
        pending: PendingAnswers,
        client_log: ClientLog,
        sign_in: SignIn,
        log: Log,
    ) -> None:
        super().__init__(app, address, pending, client_log, token="")
        self._sign_in = sign_in
        self._log = log
        self._files = {
            f"/page/{each.name}": (each.read_bytes(), _TYPES["." + each.name.rpartition(".")[2]])
            for each in files("vhostcomm.control.page").iterdir()
            if "." + each.name.rpartition(".")[2] in _TYPES
        }
        self._files["/"] = self._files.pop("/page/index.html")

    def admit(self, scope: Scope) -> None:
        """Reject pages of other sites, and browsers that have not signed in.

        Raises:
            Problem: the request is rejected; has the reason, but neither key nor cookie.
        """
        headers = dict(scope["headers"])
        scope["state"]["surface"] = "web page"
        try:
            check_origin(headers, self._names)
            if scope["method"] not in {"GET", "HEAD"}:
                check_own_page(headers)
        except Problem as problem:
            self._client_log.warning("web request rejected", why=escape(problem.why), by=peer_of(scope))
            raise _as_page(problem, headers) from None
        signed_in = self._sign_in.accepts(value for name, value in scope["headers"] if name == b"cookie")
        scope["state"]["signed_in"] = signed_in
        if signed_in or _key(scope):
            return
        why = "this browser has not signed in, or its sign-in is too old or belongs to another daemon"
        raise _as_page(Problem(401, "not signed in", why, _REMEDY), headers)

    def error(self, problem: Problem) -> bytes:
        if problem.headers is not _AS_PAGE:
            return super().error(problem)
        words = {key: escape_html(value) for key, value in problem.document()["error"].items()}
        return _PAGE.format_map(words).encode()

    def answer(self, scope: Scope) -> ASGIApp:
        if key := _key(scope):
            return self._signed_in(key, scope)
        if scope["path"] in self._files and scope["method"] in {"GET", "HEAD"}:
            content, kind = self._files[scope["path"]]
            return Response(content, media_type=kind, headers={"cache-control": "no-cache"})
        return super().answer(scope)

    def _signed_in(self, key: str, scope: Scope) -> Response:
        """Exchange a key for a cookie, and redirect to the page without the key: it stays out of history and referrers."""
        headers = {"location": "/", "cache-control": "no-store"}
        if self._sign_in.use(key):
            self._log.info("web link used", by=peer_of(scope))
            headers["set-cookie"] = self._sign_in.new_cookie()
        elif not scope["state"]["signed_in"]:
            self._client_log.warning("web link rejected", by=peer_of(scope))
            why = "the key of this link was used already, is older than an hour, or belongs to an earlier start of the daemon"
            problem = Problem(403, "the link is not valid", why, _REMEDY, _AS_PAGE)
            return Response(self.error(problem), problem.status, headers=problem.headers)
        return Response(status_code=303, headers=headers)


def _key(scope: Scope) -> str:
    """Return the key in the link of a request, or ""."""
    if scope["path"] != "/" or scope["method"] != "GET":
        return ""
    given = parse_qs(str(scope["query_string"], "latin-1"))
    return given.get("key", [""])[0]


def _as_page(problem: Problem, headers: dict[bytes, bytes]) -> Problem:
    """Return a problem as a page, if the browser opens the address as a page."""
    is_page = b"text/html" in headers.get(b"accept", b"")
    problem.headers = _AS_PAGE if is_page else {"Cache-Control": "no-store"}
    return problem
