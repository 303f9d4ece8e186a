"""The files of TLS, for the control surface and for etcd: read, check, and explain a failed connection.

Import it only where TLS is used: it imports ssl.
"""

from __future__ import annotations

import os
import shlex
import ssl
import stat
from pathlib import Path
from typing import Final

from attrs import frozen

from vhostcomm.errors import PlaceError

_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_OTHER_HOST: Final = {62, 64}
_UNKNOWN_CA: Final = {2, 18, 19, 20, 21}
_UNUSABLE_LIST: Final = {3, 11, 12}
"""Codes of X509_V_ERR_… in OpenSSL's x509_vfy.h."""

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons, in several versions, for an answer that is no TLS."""

_DEMANDED: Final = {"CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE"}
"""Alerts for a client without a certificate."""


@frozen
class Server:
    """A kind of server, for the words of errors.

    Args:
        name: of the server.
        flags: the beginning of the flags with a client's files.
        without: what to do if the server does not speak TLS.
        renewed: what to do after its certificate was made again.
    """

    name: str
    flags: str
    without: str
    renewed: str


DAEMON: Final = Server("the daemon", "--control", "give its address as tcp:HOST:PORT", "vhostcomm reload")
ETCD: Final = Server("etcd", "--cluster", "leave out --cluster-ca", "restart etcd")


def server_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """Read the files of a server, which demands that each client has a certificate of the CA. May block.

    Args:
        ca: the certificates that the other end's certificate must be of, in PEM format as the other files. If the file
            also contains a revocation list (CRL), each of these CAs needs one.
        cert: the own certificate.
        key: its key; it may be in the same file.

    Raises:
        PlaceError: a file is missing, unsafe or invalid; says which and what to do.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, ca)
    _load(context, cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    # Each connection proves its certificate again, so that a reload with another CA ends the access of the previous one.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    return context


def client_context(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Read the files of a client, which checks the CA and the host name of the server. May block.

    The files are as for `server_context`. A client may have no certificate.

    Raises:
        PlaceError: a file is missing, unsafe or invalid; says which and what to do.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ca)
    if cert:
        _load(context, cert, key or cert)
    return context


def _context(protocol: int, ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _check(ca, certificate=True)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise PlaceError(f"{ca}: {_NO_CERTIFICATE}: {error.reason}") from None
    if context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return context


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _check(cert, certificate=True, key=key == cert)
    if key != cert:
        _check(key, key=True)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedError:
        raise PlaceError(
            f"{key}: the key is encrypted, and nobody is there to decrypt it: openssl pkey -in {shlex.quote(str(key))} "
            "writes it without a passphrase"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise PlaceError(f"{key}: the key does not belong to the certificate in {cert}") from None
        names = str(cert) if key == cert else f"{cert} or {key}"
        raise PlaceError(f"{names}: can't be used: {error.reason or error.args[-1]}") from None


class _EncryptedError(Exception):
    """A key needs a passphrase."""


def _no_password() -> str:
    """Reject an encrypted key. Otherwise, OpenSSL asks for the passphrase on the terminal and waits."""
    raise _EncryptedError


_NO_CERTIFICATE: Final = "the file has no certificate in PEM format"


def _check(path: Path, *, certificate: bool = False, key: bool = False) -> None:
    """Check that a file with a certificate, a key or both is safe to use.

    Raises:
        PlaceError: it is missing, other users could replace it, or read a key in it.
    """
    what = "certificate" if certificate else "key"
    quoted = shlex.quote(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise PlaceError(f"{path}: not a file, but the {what} must be one")
        content = path.read_bytes()
    except OSError as error:
        remedy = f"; uid {os.geteuid()} must be able to read it" if isinstance(error, PermissionError) else ""
        raise PlaceError(f"{path}: the {what} can't be read: {error.strerror}{remedy}") from None
    if found.st_uid not in {0, os.geteuid()}:
        raise PlaceError(
            f"{path}: the {what} belongs to uid {found.st_uid}, who could replace it: chown {os.geteuid()} {quoted}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlaceError(f"{path}: other users can replace the {what}: chmod go-w {quoted}")
    if certificate and b"-----BEGIN CERTIFICATE-----" not in content:
        raise PlaceError(f"{path}: {_NO_CERTIFICATE}")
    if key:
        # A group may read root's key: a service has no other way to get it from root.
        group = 0 if found.st_uid == 0 else stat.S_IRGRP
        if found.st_mode & (stat.S_IROTH | group):
            raise PlaceError(f"{path}: other users can read the key: chmod 600 {quoted}")
        if b"PRIVATE KEY-----" not in content:
            raise PlaceError(f"{path}: the file has no key in PEM format")


def explained(error: ssl.SSLError, host: str, server: Server = DAEMON, *, has_certificate: bool = True) -> str:
    """Say why a client's connection failed, and what to do.

    Args:
        error: of the connection.
        host: the server's, as the user named it.
        server: what the client asked.
        has_certificate: whether the client has a certificate.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error, host, server)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return f"{server.name} does not speak TLS there; {server.without}"
    _, _, alert = reason.partition("ALERT_")
    own = f"the certificate in {server.flags}-cert"
    if alert in _DEMANDED and (not has_certificate or alert != "BAD_CERTIFICATE"):
        return f"{server.name} demands a certificate; give {server.flags}-cert and {server.flags}-key"
    match alert:
        case "CERTIFICATE_EXPIRED":
            return f"{own} has expired; make a new one"
        case "UNKNOWN_CA":
            return f"{own} is not of {server.name}'s CA; use one of that CA"
        case "":
            return f"TLS failed: {reason.replace('_', ' ').lower() or error.args[-1]}; see the log of {server.name}"
        case _:
            return f"{server.name} rejects {own}: {alert.replace('_', ' ').lower()}; see its log"


def _of_certificate(error: ssl.SSLCertVerificationError, host: str, server: Server) -> str:
    code, its = error.verify_code, f"{server.name}'s certificate"
    if code == _EXPIRED:
        return f"{its} has expired; make a new one on its host, then: {server.renewed}"
    if code == _NOT_YET_VALID:
        return f"{its} is not valid yet; compare the clocks of both hosts"
    if code in _OTHER_HOST:
        return f"{its} is not for {host!r}; use a name that it contains, or make one with subjectAltName for {host}"
    if code in _UNKNOWN_CA:
        return f"{its} is not of the CA in {server.flags}-ca; use the CA that signed it"
    if code in _UNUSABLE_LIST:
        return f"{error.verify_message}, in {server.flags}-ca; make a new list with openssl ca -gencrl"
    return f"{its} is not valid: {error.verify_message}; make a new one on its host"
