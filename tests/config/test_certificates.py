"""TLS files, as the control surface and the client of etcd read them."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.control.authority import Authority, TlsFiles
from vhostcomm.cluster.address import Access
from vhostcomm.config.certificates import client_context, server_context
from vhostcomm.errors import ConfigError, PlaceError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority.new(tmp_path / "own").host("one", "one.example")


def cluster_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """Read the files as --cluster does."""
    return Access((), ca=str(ca), certificate=str(cert), key=str(key)).context()


READERS = ((server_context, PlaceError), (client_context, PlaceError), (cluster_context, ConfigError))
"""Each reader of TLS files and its error: the control surface, its clients, and the client of etcd."""


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
    for read, _ in READERS:
        read(*files)
    spoil(files)
    for read, kind in READERS:
        with pytest.raises(kind, match=why):
            read(*files)


def test_key_of_another_certificate(files: TlsFiles, authority: Authority) -> None:
    other = files._replace(key=authority.host("two", "two.example").key)
    for read, kind in READERS:
        with pytest.raises(kind, match=r"two\.key: the key does not belong to the certificate in .*one\.crt"):
            read(*other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user(files: TlsFiles) -> None:
    files.key.chmod(0o640)
    for read, _ in READERS:
        read(*files)  # a key of root may be readable by its group
    os.chown(files.key, 12345, 0)
    for read, kind in READERS:
        with pytest.raises(kind, match="the key belongs to uid 12345, who could replace it: chown 0 /"):
            read(*files)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.chmod(0o644), "one.crt: other users can read the key: chmod 600 /"),
        (lambda file: file.chmod(0o660), "one.crt: other users can replace the certificate: chmod go-w /"),
        (lambda file: file.write_text("-----BEGIN CERTIFICATE-----\n"), "one.crt: the file has no key in PEM format"),
        (
            lambda file: file.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"),
            r"^--cluster: /\S+/one.crt: can't be used: ",
        ),
    ],
)
def test_certificate_and_key_in_one_file(files: TlsFiles, spoil: Callable[[Path], None], why: str) -> None:
    files.cert.write_bytes(files.cert.read_bytes() + files.key.read_bytes())
    files.cert.chmod(0o600)
    one = files._replace(key=files.cert)
    cluster_context(*one)
    spoil(files.cert)
    with pytest.raises(ConfigError, match=why):
        cluster_context(*one)
