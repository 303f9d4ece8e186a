"""The files of TLS, and the limits of clients without a certificate."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio

from tests.control.authority import Authority
from tests.trio_help import run
from vhostcomm.config.http_address import TlsFiles
from vhostcomm.control.certificates import client_context, server_context
from vhostcomm.control.problems import Problem
from vhostcomm.control.server import StrangersLog
from vhostcomm.control.tls import HANDSHAKE_TIMEOUT, Handshakes
from vhostcomm.errors import PlaceError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority.new(tmp_path / "own").host("one", "one.example")


def encrypt(files: TlsFiles) -> None:
    words: list[str | Path] = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-out", files.key]
    subprocess.run(words, input=files.key.read_bytes(), check=True)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda files: files.key.unlink(), "one.key: the key can't be read: No such file or directory"),
        (lambda files: files.ca.unlink(), "ca.crt: the certificate can't be read: No such file"),
        (lambda files: files.key.chmod(0o604), "one.key: other users can read the key: chmod 600 /"),
        (lambda files: files.key.chmod(0o620), "one.key: other users can replace the key: chmod go-w /"),
        (lambda files: files.cert.chmod(0o646), "one.crt: other users can replace the certificate: chmod go-w /"),
        (lambda files: files.ca.chmod(0o664), "ca.crt: other users can replace the certificate: chmod go-w /"),
        (lambda files: files.key.write_bytes(files.cert.read_bytes()), "one.key: the file has no key in PEM format"),
        (lambda files: files.cert.write_bytes(files.key.read_bytes()), "one.crt: the file has no certificate in PEM"),
        (
            lambda files: files.ca.write_text("-----BEGIN CERTIFICATE-----\n"),
            "ca.crt: the file has no certificate in PEM",
        ),
        (lambda files: files.cert.write_text("-----BEGIN CERTIFICATE-----\n"), "one.crt or .*one.key: can't be used: "),
        pytest.param(
            encrypt,
            "one.key: the key is encrypted, and nobody is there to decrypt it: openssl pkey -in /",
            marks=pytest.mark.needs("openssl"),
        ),
    ],
)
def test_files_that_cannot_be_used(files: TlsFiles, spoil: Callable[[TlsFiles], None], why: str) -> None:
    server_context(files)
    spoil(files)
    for read in server_context, client_context:
        with pytest.raises(PlaceError, match=why):
            read(files)


def test_key_of_another_certificate(files: TlsFiles, authority: Authority) -> None:
    other = authority.host("two", "two.example")
    with pytest.raises(PlaceError, match=r"two\.key: the key does not belong to the certificate in .*one\.crt"):
        server_context(attrs.evolve(files, key=other.key))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user(files: TlsFiles) -> None:
    files.key.chmod(0o640)
    server_context(files)  # a group may read root's key
    os.chown(files.key, 12345, 0)
    with pytest.raises(PlaceError, match="the key belongs to uid 12345, who could replace it: chown 0 /"):
        server_context(files)


def test_handshake_has_a_deadline(files: TlsFiles) -> None:
    """Of a client that sends nothing, and of one that stops in the middle."""

    async def main(sent: bytes) -> None:
        lines: list[dict[str, Any]] = []

        def take(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
            lines.append(dict(line))
            raise structlog.DropEvent

        log = structlog.wrap_logger(None, [take])
        ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
        async with trio.open_nursery() as nursery:
            handshakes = Handshakes(StrangersLog(log, nursery), _body)
            began = trio.current_time()
            await theirs.send(sent)
            with theirs:
                assert await handshakes.finish(trio.SocketStream(ours), server_context(files)) is None
                assert trio.current_time() - began == pytest.approx(HANDSHAKE_TIMEOUT, abs=0.1)
                assert await theirs.recv(1) == b""
            assert [line["why"] for line in lines] == [f"no certificate within {HANDSHAKE_TIMEOUT:g} s"]
            nursery.cancel_scope.cancel()

    for sent in b"", b"\x16\x03\x01\x02\x00\x01":
        run(main, sent)


def _body(problem: Problem) -> bytes:
    return str(problem).encode()
