"""A real daemon with its web page, and requests as browsers send them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.control.controlled import client
from tests.serving import Serving, held_port


@frozen
class Answer:
    """A response, with its headers by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


@frozen
class Web:
    """A web page of a daemon."""

    port: int
    control: Path
    daemon: Serving

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def link(self) -> str:
        """A new link."""
        with client(self.control) as http:
            return str(http.post("/web").json()["link"])

    def key(self) -> str:
        """The part of a new link behind the host."""
        before, _, key = self.link().partition("/?key=")
        assert before == f"http://{self.host}"
        return f"/?key={key}"

    def cookie(self) -> str:
        """The cookie of a browser that has opened a new link."""
        return cookie_of(self.ask(self.key()))

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """Send a request; underscores in a header's name are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": self.host, "Connection": "close"} | sent)
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read().decode())
        finally:
            connection.close()


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


@contextmanager
def web(folder: Path, *words: str | Path, port: int = 0, guest: bool = True, **options: Any) -> Iterator[Web]:
    """A daemon with a guest, `nas`, and a web page."""
    control = folder / "control"
    with held_port() as free:
        served: list[str | Path] = ["--sock", folder / "nas"] if guest else []
        where = f"127.0.0.1:{port or free}"
        with Serving(*served, "--control", control, "--web", where, *words, **options) as daemon:
            yield Web(port or free, control, daemon)
