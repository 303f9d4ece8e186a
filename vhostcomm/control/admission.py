"""Which requests are answered: with the token, and not of a web page of another site, or through its own DNS name."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from vhostcomm.config.address import Listen, ListenTcp
from vhostcomm.config.http_address import ListenTls
from vhostcomm.control.problems import Problem

_PORT: Final = re.compile(r":[0-9]*$")


def peer_of(scope: MutableMapping[str, Any]) -> str:
    """Return the client as the kernel reports it; empty if it reports none."""
    return " ".join(f"{key} {value}" for key, value in scope.get("state", {}).get("peer", {}).items())


def own_names(address: Listen | ListenTcp) -> frozenset[str] | None:
    """Return the names, in lower case, that clients may use for a server, besides IP addresses and localhost.

    None allows every name: no page can reach a unix socket, and with TLS the certificate is not for the page's name.
    """
    if isinstance(address, Listen | ListenTls):
        return None
    machine = socket.gethostname().lower()
    return frozenset({address.host.lower(), machine, machine.partition(".")[0]} - {""})


def has_token(shown: Sequence[bytes], token: bytes) -> bool:
    """Return whether a request's only Authorization header shows the token; True if the token is empty."""
    if not token:
        return True
    if len(shown) != 1:
        return False
    kind, _, what = shown[0].partition(b" ")
    return kind.lower() == b"bearer" and hmac.compare_digest(what, token)


def check_origin(headers: Mapping[bytes, bytes], names: Collection[str] | None, *, browsers: bool = True) -> None:
    """Reject a request that a page of another site makes.

    Programs such as curl send none of the checked headers. A browser adds `Sec-Fetch-Site` if the server is on the same
    machine or uses TLS, `Origin` to each POST, and usually `Referer`. A page can't remove or change any of these.

    Args:
        headers: by their names in lower case.
        names: see `own_names`.
        browsers: whether to allow a browser that sends none of these headers, as for an image from another machine. Its
            `User-Agent` identifies it: a page can't change that without a prior OPTIONS request.

    Raises:
        Problem: the request is rejected; has the reason.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if names is not None and _is_foreign(host, names):
        raise _refused(
            f"the Host header names {host!r}, which may be any page's name for this machine",
            "use an IP address, localhost or this machine's hostname",
        )
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
    if site:
        if site not in {"none", "same-origin"}:
            raise _refused(f"the request comes from a page of another site (Sec-Fetch-Site: {site})", _REMEDY)
        return
    for name in (b"origin", b"referer"):
        if page := headers.get(name, b"").decode("latin-1"):
            if not _is_of(page, host):
                raise _refused(f"the request comes from a page of another site ({page})", _REMEDY)
            return
    if not browsers and headers.get(b"user-agent", b"").startswith(b"Mozilla/"):
        raise _refused("a browser sent the request without naming its page", _REMEDY)


def check_own_page(headers: Mapping[bytes, bytes]) -> None:
    """Reject a request that no page of this server makes, by headers that each browser adds to a change.

    The names of `headers` are in lower case; `check_origin` has checked the headers.

    Raises:
        Problem: the request is rejected; has the reason.
    """
    site = headers.get(b"sec-fetch-site")
    if site != b"same-origin" and (site or b"origin" not in headers):
        raise _refused("the change does not come from a page of this server", "use its page, or the verbs of vhostcomm")


_REMEDY: Final = "ask with a program such as curl"


def _refused(why: str, remedy: str) -> Problem:
    return Problem(403, "refused", why, remedy)


def _is_foreign(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header is neither an IP address nor one of our names. A page's DNS name may lead here."""
    name = _PORT.sub("", host.lower()).rstrip(".")
    if not name or name in names or name == "localhost" or name.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return True
    return False


def _is_of(page: str, host: str) -> bool:
    """Return whether a page came from the same host and port."""
    try:
        parts = urlsplit(page)
    except ValueError:
        return False
    return bool(host) and parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower()
