"""Requests that web pages make, with the headers that a browser adds: rejected; programs are answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.test_token import TOKEN, over_tcp
from tests.qemu_host.running import answering
from tests.serving import Serving, held_port
from vchannel import Request

CURL = "User-Agent: curl/8.14.1"
MOZILLA = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
HERE = "Host: 127.0.0.1:2210"
PAGE = "https://page.example"

REFUSED = [
    [HERE, "Sec-Fetch-Site: cross-site"],
    [HERE, "Sec-Fetch-Site: same-site", MOZILLA],
    [HERE, f"Origin: {PAGE}"],
    [HERE, "Origin: null"],
    [HERE, f"Referer: {PAGE}/power-off.html"],
    ["Host: page.example:2210"],
    ["Host: localhost.page.example"],
    ["Host: 127.0.0.1.page.example"],
]
ANSWERED = [
    [HERE],
    [HERE, CURL],
    ["Host: localhost"],
    ["Host: [::1]:2210"],
    ["Host: 192.0.2.1"],
    ["Host: LOCALHOST.:80"],
    [f"Host: {socket.gethostname()}"],
    [HERE, "Sec-Fetch-Site: none", MOZILLA],
    [HERE, "Sec-Fetch-Site: same-origin", f"Origin: http://{HERE.split()[1]}"],
    [HERE, f"Origin: http://{HERE.split()[1]}", MOZILLA],
]


def ask(where: Path | int, method: str, target: str, *headers: str, version: str = "1.1") -> tuple[int, bytes]:
    """The status and the body of a request with just these headers."""
    with socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET) as sock:
        sock.connect(str(where) if isinstance(where, Path) else ("127.0.0.1", where))
        lines = [f"{method} {target} HTTP/{version}", "Connection: close", *headers, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        with sock.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


class Api:
    """qemu-host's API in a daemon, over TCP or a unix socket, and the commands that its guest received."""

    def __init__(self, folder: Path, port: int) -> None:
        self.unix = folder / "api"
        self.asked: list[int] = []
        self.port = port

    def answer(self, request: Request) -> bytes:
        self.asked.append(int(request.command))
        return b"fine\0"


@pytest.fixture(scope="module", params=["tcp", "unix"])
def api(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Api, Path | int]]:
    folder = tmp_path_factory.mktemp("api")
    unix = request.param == "unix"
    with held_port() as port:
        made = Api(folder, port)
        where = f"unix:{made.unix}" if unix else f"127.0.0.1:{port}"
        with (
            Serving("--sock", folder / "nas", "--control", "none", "--qemu-host-api", where),
            answering(folder / "nas", made.answer),
        ):
            yield made, made.unix if unix else port


@pytest.mark.parametrize("headers", [*REFUSED, [HERE, MOZILLA], [HERE, MOZILLA, "Accept: image/*"]], ids=str)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_cannot_power_off_the_guest(api: tuple[Api, Path | int], method: str, headers: list[str]) -> None:
    made, where = api
    made.asked.clear()
    status, body = ask(where, method, "/read?command=6", *headers)
    if isinstance(where, Path) and len(headers) == 1 and headers[0].startswith("Host:") and headers != [HERE]:
        assert status == 200  # no page reaches a unix socket, and its clients may use any host name
        return
    assert status == 403
    answer = json.loads(body)
    assert (list(answer), answer["status"]) == (["status", "message", "data"], "error")
    assert not made.asked


@pytest.mark.parametrize("headers", ANSWERED, ids=str)
def test_programs_are_answered(api: tuple[Api, Path | int], headers: list[str]) -> None:
    made, where = api
    host = headers[0].removeprefix("Host: ")
    for target in ("/read?command=2", f"http://{host}/read?command=2"):
        for method in ("GET", "POST"):
            assert ask(where, method, target, *headers) == (
                200,
                b'{"status": "success", "data": "fine", "message": null}',
            )
    assert made.asked[-4:] == [2] * 4


def test_http_1_0_without_a_host_is_answered(api: tuple[Api, Path | int]) -> None:
    assert ask(api[1], "GET", "/read?command=2", version="1.0")[0] == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "ODD"])
def test_other_methods_ask_nothing(api: tuple[Api, Path | int], method: str) -> None:
    made, where = api
    before = len(made.asked)
    status, body = ask(where, method, "/read?command=6", HERE)
    assert status == 405
    assert method == "HEAD" or json.loads(body)["status"] == "error"
    assert len(made.asked) == before


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, int]]:
    with over_tcp(tmp_path_factory.mktemp("origin")) as made:
        yield made


@pytest.mark.parametrize(("all_headers", "status"), [(REFUSED, 403), (ANSWERED, 200)])
def test_control_surface_rejects_pages_and_answers_programs(
    control: tuple[Serving, int], all_headers: list[list[str]], status: int
) -> None:
    """Even a page that knows the token is rejected."""
    for headers in all_headers:
        assert ask(control[1], "GET", "/guests", f"Authorization: Bearer {TOKEN}", *headers)[0] == status, headers
