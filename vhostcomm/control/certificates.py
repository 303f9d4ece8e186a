"""The files of TLS: a CA, a certificate and its key. Without trio, for clients and servers of the control surface."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path
from typing import Final

from vhostcomm.config.http_address import TlsFiles
from vhostcomm.errors import PlaceError

_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_OTHER_HOST: Final = {62, 64}
_UNKNOWN_CA: Final = {2, 18, 19, 20, 21}
"""Codes of X509_V_ERR_… in OpenSSL's x509_vfy.h."""

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
"""OpenSSL's reasons, in several versions, for an answer that is no TLS."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files of a server, which demands that each client has a certificate of the CA. May block.

    Raises:
        PlaceError: a file is missing, unsafe or invalid; says which and what to do.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    # Each connection proves its certificate again, so that a reload with another CA ends the access of the previous one.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files of a client, which checks the CA and the host name of the server.

    Raises:
        PlaceError: a file is missing, unsafe or invalid; says which and what to do.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path, what in ((files.ca, "certificate"), (files.cert, "certificate"), (files.key, "key")):
        _check(path, what)
    try:
        context.load_verify_locations(files.ca)
    except ssl.SSLError as error:
        raise PlaceError(f"{files.ca}: {_NO_CERTIFICATE}: {error.reason}") from None
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except _EncryptedError:
        raise PlaceError(
            f"{files.key}: the key is encrypted, and nobody is there to decrypt it: openssl pkey -in {files.key} "
            "writes it without a passphrase"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise PlaceError(f"{files.key}: the key does not belong to the certificate in {files.cert}") from None
        raise PlaceError(f"{files.cert} or {files.key}: can't be used: {error.reason or error.args[-1]}") from None
    return context


class _EncryptedError(Exception):
    """A key needs a passphrase."""


def _no_password() -> str:
    """Reject an encrypted key. Otherwise, OpenSSL asks for the passphrase on the terminal and waits."""
    raise _EncryptedError


_NO_CERTIFICATE: Final = "the file has no certificate in PEM format"


def _check(path: Path, what: str) -> None:
    """Check that a file is safe to use.

    Raises:
        PlaceError: it is missing, other users could replace it, or read a key in it.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise PlaceError(f"{path}: not a file, but the {what} of the control surface must be one")
        content = path.read_bytes()
    except OSError as error:
        remedy = f"; uid {os.geteuid()} must be able to read it" if isinstance(error, PermissionError) else ""
        raise PlaceError(f"{path}: the {what} can't be read: {error.strerror}{remedy}") from None
    if found.st_uid not in {0, os.geteuid()}:
        raise PlaceError(
            f"{path}: the {what} belongs to uid {found.st_uid}, who could replace it: chown {os.geteuid()} {path}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PlaceError(f"{path}: other users can replace the {what}: chmod go-w {path}")
    if what == "key":
        # A group may read root's key: a service has no other way to get it from root.
        group = 0 if found.st_uid == 0 else stat.S_IRGRP
        if found.st_mode & (stat.S_IROTH | group):
            raise PlaceError(f"{path}: other users can read the key: chmod 600 {path}")
        if b"PRIVATE KEY-----" not in content:
            raise PlaceError(f"{path}: the file has no key in PEM format")
    elif b"-----BEGIN CERTIFICATE-----" not in content:
        raise PlaceError(f"{path}: {_NO_CERTIFICATE}")


def explained(error: ssl.SSLError, host: str) -> str:
    """Say why a client's connection failed, and what to do.

    Args:
        error: of the connection.
        host: the server's, as the user named it.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error, host)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return "the daemon does not speak TLS there; give its address as tcp:HOST:PORT"
    _, _, alert = reason.partition("ALERT_")
    match alert:
        case "CERTIFICATE_REQUIRED" | "HANDSHAKE_FAILURE":
            return "the daemon demands a certificate; give --control-cert and --control-key"
        case "CERTIFICATE_EXPIRED":
            return "the certificate in --control-cert has expired; make a new one"
        case "UNKNOWN_CA":
            return "the certificate in --control-cert is not of the daemon's CA; use one of that CA"
        case "":
            return f"TLS failed: {reason.replace('_', ' ').lower() or error.args[-1]}; see the daemon's log"
        case _:
            return (
                f"the daemon rejects the certificate in --control-cert: {alert.replace('_', ' ').lower()}; see its log"
            )


def _of_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "the daemon's certificate has expired; make a new one on its host, then: vhostcomm reload"
    if code == _NOT_YET_VALID:
        return "the daemon's certificate is not valid yet; compare the clocks of both hosts"
    if code in _OTHER_HOST:
        return (
            f"the daemon's certificate is not for {host!r}; use a name that it contains, or make one with "
            f"subjectAltName for {host}"
        )
    if code in _UNKNOWN_CA:
        return "the daemon's certificate is not of the CA in --control-ca; use the CA that signed it"
    return f"the daemon's certificate is not valid: {error.verify_message}; make a new one on its host"
