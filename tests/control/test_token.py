"""The token of a control surface over TCP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, Serving, held_port

TOKEN = "a-long-random-secret"


@contextmanager
def over_tcp(folder: Path) -> Iterator[tuple[Serving, int]]:
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": TOKEN}
    with (
        held_port() as port,
        Serving("--sock", folder / "nas", "--control", f"tcp:127.0.0.1:{port}", env=environment) as daemon,
    ):
        yield daemon, port
    assert TOKEN not in "".join(daemon.raw) + daemon.errors()


def ask(port: int, *headers: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        lines = ["GET /guests HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        with sock.makefile("rb") as answer:
            return answer.read()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, int]]:
    with over_tcp(tmp_path_factory.mktemp("token")) as made:
        yield made


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Authorization:"],
        ["Authorization: Bearer"],
        ["Authorization: Bearer " + TOKEN[:1]],
        ["Authorization: Bearer " + TOKEN[:-1]],
        ["Authorization: Bearer " + TOKEN + "x"],
        ["Authorization: Bearer  " + TOKEN],
        ["Authorization: Bearer " + TOKEN.upper()],
        ["Authorization: Basic " + TOKEN],
        ["Authorization: " + TOKEN],
        ["Authorization: Bearer " + TOKEN, "Authorization: Bearer x"],
    ],
    ids=str,
)
def test_only_the_whole_token_is_accepted(served: tuple[Serving, int], headers: list[str]) -> None:
    _, port = served
    refused = ask(port, *headers)
    assert refused.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert TOKEN.encode() not in refused
    assert ask(port, f"Authorization: bearer {TOKEN}").startswith(b"HTTP/1.1 200 OK\r\n")


def test_wrong_tokens_are_counted(tmp_path: Path) -> None:
    with over_tcp(tmp_path) as (daemon, port):
        for _ in range(20):
            ask(port, "Authorization: Bearer wrong")
        daemon.event("control token rejected", times=1)
    assert [line["times"] for line in daemon.log if line["event"] == "control token rejected"] == [1, 19]
