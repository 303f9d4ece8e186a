"""Requests to etcd's JSON gateway, its answers, and its errors in our terms.

protobuf's JSON leaves out values that are the default, and writes 64-bit integers as text. Keys and values are in base64.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final, Self

import httpx
import trio

from vhostcomm.config.certificates import ETCD, explained
from vhostcomm.errors import VhostcommError
from vhostcomm.text import escape

ANSWER_MAX: Final = 4 << 20
"""Maximum bytes of an answer, or of a line of a watch: a page of guests has less than 1 MiB."""

CLOSED: Final = "it closed the connection"
"""The reason if a member has given none."""

_TOKEN_INVALID: Final = ("invalid auth token", "revision of auth store is old")
_NO_USER: Final = "user name is empty"
_CN_IGNORED: Final = "CommonName of client"
_MEMBERS_FAULT: Final = {408, 429, 500, 502, 503, 504}
"""HTTP statuses of a member without a leader, a busy one, or one that is just starting."""


class EtcdError(VhostcommError):
    """A request that etcd rejected."""


class UnreachableError(EtcdError):
    """No member can be used now; has the reason of the last one."""


class CompactedError(EtcdError):
    """A watch began at a revision that etcd no longer has: read the tree again."""


class TooLargeError(EtcdError):
    """An answer is too large: ask for less."""


class TokenError(EtcdError):
    """The token of our sign-in is no longer valid."""


class Body(httpx.AsyncByteStream):
    """A request's body. httpx has a generator, which a failed connection would leave to the collector."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def content(response: httpx.Response, member: str) -> bytes:
    """Return an answer.

    Raises:
        TooLargeError: it is too large.
    """
    found = bytearray()

    def take(part: bytes) -> None:
        found.extend(part)
        if len(found) > ANSWER_MAX:
            raise TooLargeError(f"{member}: an answer of more than {ANSWER_MAX >> 20} MiB; check the prefix")

    await _read(response, take)
    return bytes(found)


async def each_line(response: httpx.Response, member: str, take: Callable[[dict[str, Any]], None]) -> None:
    """Call `take` with each document of a stream, until it ends.

    Raises:
        EtcdError: of `take`, or a line is too large.
    """
    left = bytearray()

    def feed(part: bytes) -> None:
        searched = len(left)
        left.extend(part)
        while (end := left.find(b"\n", searched)) >= 0:
            line = bytes(left[:end])
            del left[: end + 1]
            searched = 0
            take(document(member, line))
        if len(left) > ANSWER_MAX:
            raise EtcdError(f"{member}: a change of more than {ANSWER_MAX >> 20} MiB; check the prefix")

    await _read(response, feed)


async def _read(response: httpx.Response, take: Callable[[bytes], None]) -> None:
    """Call `take` with the parts of a body, until it raises an error."""
    failed: EtcdError | None = None
    # A generator of httpx that is left early is closed too late, by the collector. A cancellation ends all of them.
    with trio.CancelScope() as scope:
        async for part in response.aiter_bytes():
            if failed is None:
                try:
                    take(part)
                except EtcdError as error:
                    failed = error
                    scope.cancel()
    if failed:
        raise failed


def document(member: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnreachableError(f"{member}: it answers without JSON; check that etcd listens there")
    return found


def rejection(status: int, body: str, member: str = "") -> EtcdError:
    """Return the error of an answer: etcd's own words, and what to do."""
    try:
        document = json.loads(body)
        words = str(document.get("message") or document.get("error") or body)
    except (ValueError, AttributeError, RecursionError):
        words = body
    words = escape(words.strip())
    at = f"{member}: " if member else ""
    if any(each in words for each in _TOKEN_INVALID):
        return TokenError(f"{at}{words}")
    if _CN_IGNORED in words:
        words = (
            "etcd's gateway rejects client certificates with a CN (common name) once authentication is on; "
            "give --cluster-cert a certificate without one, and --cluster-user"
        )
    elif _NO_USER in words:
        words = "etcd's authentication is on: give --cluster-user, and VHOSTCOMM_CLUSTER_PASSWORD in the environment"
    elif status == httpx.codes.NOT_FOUND and "etcdserver" not in words:
        words = "it has no /v3/; check that etcd 3.4 or later listens there"
    elif status in _MEMBERS_FAULT or "no leader" in words or (not status and "PermissionDenied" not in words):
        return UnreachableError(f"{at}{words}")
    return EtcdError(f"{at}{words}")


def why(error: BaseException, host: str = "", *, has_certificate: bool = False) -> str:
    """Return the cause of a failed connection: the innermost error's own words.

    Args:
        error: of httpx.
        host: of the member.
        has_certificate: whether we have a certificate for etcd.
    """
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__ or _first(inner)) is not None:
        inner = deeper
    if isinstance(inner, ssl.SSLError):
        return explained(inner, host, ETCD, has_certificate=has_certificate)
    if isinstance(inner, OSError) and inner.errno == errno.EAFNOSUPPORT:
        return (
            "TCP is forbidden here; under systemd, a drop-in of the unit (`systemctl edit UNIT`) allows it: [Service] "
            "PrivateNetwork=no RestrictAddressFamilies=AF_INET AF_INET6 IPAddressAllow=ADDRESSES, each on a line of its own"
        )
    if isinstance(inner, OSError) and inner.strerror:
        # trio's text repeats the address; the number of a resolver's error is no system's.
        return inner.strerror if isinstance(inner, socket.gaierror) or not inner.errno else os.strerror(inner.errno)
    text = str(inner) or str(error)
    return escape(text) if text and text != type(error).__name__ else CLOSED


def _first(error: BaseException) -> BaseException | None:
    """Return the first of several errors: a member's name may have several addresses."""
    return error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def bytes_of(document: dict[str, Any], key: str) -> bytes:
    try:
        return b64decode(document.get(key, ""))
    except (ValueError, TypeError):
        raise UnreachableError(f"an invalid {key}; check that etcd listens there") from None


def number_of(document: dict[str, Any], key: str) -> int:
    found = document.get(key, 0)
    try:
        return int(found)
    except (ValueError, TypeError):
        raise UnreachableError(f"{key} is {found!r:.40}; check that etcd listens there") from None


def object_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key, {})
    return found if isinstance(found, dict) else {}


def objects_of(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key, [])
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
