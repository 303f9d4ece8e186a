"""A client of etcd's version 3, through its JSON gateway: `POST` with JSON, and streams of JSON lines.

Error handling: a member that can't be used is `UnreachableError`, and another member is asked. A request that no member
would execute is another `EtcdError`. Nothing else is raised.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Self

import httpx
import trio
from attrs import frozen

from vhostcomm.cluster.address import Access
from vhostcomm.cluster.wire import (
    CLOSED,
    Body,
    CompactedError,
    EtcdError,
    TokenError,
    TooLargeError,
    UnreachableError,
    base64,
    bytes_of,
    content,
    document,
    each_line,
    number_of,
    object_of,
    objects_of,
    rejection,
    why,
)
from vhostcomm.linux.threads import short_turns

CONNECT_TIMEOUT: Final = 2.0
CALL_TIMEOUT: Final = 3.0
"""Seconds to connect to a member, and for its answer. An election takes less than two with etcd's defaults."""

SILENCE_MAX: Final = 15 * 60.0
"""Seconds without anything from a watch. etcd reports its progress every 10 minutes."""

PAGE: Final = 50
"""Keys of one answer. The event loop decodes it, and a guest's answer may wait for that."""

_NO_AUTH: Final = "authentication is not enabled"


@frozen
class Entry:
    """A key with its value."""

    key: str
    value: bytes
    revision: int


@frozen
class Change:
    """A change of a key; `entry` is None if it was deleted."""

    key: str
    revision: int
    entry: Entry | None


class Gateway:
    """The members of an etcd; one of them is asked, until it fails. Use it as an asynchronous context."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._place = 0
        self._token = ""
        self._signing_in = trio.Lock()
        self._client: httpx.AsyncClient
        self._watching = trio.CancelScope()

    async def __aenter__(self) -> Self:
        with short_turns():  # it reads files, and making a client takes a while
            self._client = await trio.to_thread.run_sync(self._made, abandon_on_cancel=True)
        return self

    def _made(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(CALL_TIMEOUT, connect=CONNECT_TIMEOUT, read=SILENCE_MAX)
        # No proxy: members are reached directly, and the environment is meant for other programs.
        return httpx.AsyncClient(verify=self._access.context(), trust_env=False, timeout=timeout)

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._client.aclose()

    @property
    def member(self) -> str:
        """The URL of the member that is asked."""
        return self._access.urls[self._place]

    def leave(self, member: str) -> None:
        """Ask the next member from now on, unless this one has been left already. A watch of it ends."""
        if member == self.member:
            self._place = (self._place + 1) % len(self._access.urls)
            self._watching.cancel()  # it may be silent for ever

    # -- requests

    async def range(self, below: str = "") -> tuple[list[Entry], int]:
        """Return everything below the prefix, or a part of it, and the revision of the tree.

        Raises:
            EtcdError: it can't be read.
        """
        part = self._access.prefix + below
        first, end = _key(part), _key(part, after=True)
        found: list[Entry] = []
        revision, limit = 0, PAGE
        while True:
            pinned = {"revision": str(revision)} if revision else {}
            try:
                page = await self._post("kv/range", {"key": first, "range_end": end, "limit": str(limit), **pinned})
            except TooLargeError:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            revision = revision or number_of(object_of(page, "header"), "revision")
            limit = min(PAGE, 2 * limit)
            kvs = objects_of(page, "kvs")
            found += [self._entry(each) for each in kvs]
            if not page.get("more") or not kvs:
                return found, revision
            first = base64(bytes_of(kvs[-1], "key") + b"\0")  # as it is: a key may be no UTF-8

    async def transact(
        self,
        puts: dict[str, bytes],
        deletes: Sequence[str] = (),
        lease: int = 0,
        *,
        only_mine: str = "",
    ) -> bool:
        """Put and delete keys under a lease, all or none.

        Args:
            puts: values by key.
            deletes: keys.
            lease: of the values.
            only_mine: a key that has to be missing or under this lease; "" for no condition.

        Returns:
            Whether it was done: False if `only_mine` is under another lease.

        Raises:
            EtcdError: it can't be done; it may have been, if no member answered.
        """
        wanted: list[dict[str, Any]] = [
            {"request_put": {"key": self._full(key), "value": base64(value), "lease": str(lease)}}
            for key, value in puts.items()
        ]
        wanted += [{"request_delete_range": {"key": self._full(key)}} for key in deletes]
        body: dict[str, Any] = {"success": wanted}
        if only_mine:
            full = self._full(only_mine)
            missing = {"key": full, "target": "VERSION", "result": "EQUAL", "version": "0"}
            mine = {"key": full, "target": "LEASE", "result": "EQUAL", "lease": str(lease)}
            body |= {"compare": [missing], "failure": [{"request_txn": {"compare": [mine], "success": wanted}}]}
        answer = await self._post("kv/txn", body)
        if not only_mine or answer.get("succeeded"):
            return True
        inner = next(iter(objects_of(answer, "responses")), {})
        return bool(object_of(inner, "response_txn").get("succeeded"))

    async def grant(self, seconds: int) -> int:
        """Make a lease. Return its number."""
        return number_of(await self._post("lease/grant", {"TTL": str(seconds)}), "ID")

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease. Return its seconds from before the request was sent; 0 if there is no such lease."""
        answer = await self._post("lease/keepalive", {"ID": str(lease)})
        return number_of(object_of(answer, "result"), "TTL")  # which is missing for a lease that has ended

    async def revoke(self, lease: int) -> None:
        """End a lease: its keys are deleted."""
        await self._post("lease/revoke", {"ID": str(lease)})

    async def watch(self, revision: int, changed: Callable[[list[Change]], None]) -> None:
        """Call `changed` with the changes below the prefix from a revision on, until that fails or the member is left.

        Raises:
            CompactedError: etcd no longer has them.
            EtcdError: the watch ended; says why.
        """
        prefix = self._access.prefix
        create = {
            "key": _key(prefix), "range_end": _key(prefix, after=True), "start_revision": str(revision),
            "progress_notify": True, "fragment": True,
        }  # fmt: skip
        member = self.member

        def take(line: dict[str, Any]) -> None:
            result = object_of(line, "result")
            if "error" in line:
                raise rejection(0, json.dumps(line["error"]))
            if number_of(result, "compact_revision"):
                raise CompactedError(f"{member}: revision {revision} was compacted")
            if result.get("canceled"):
                self._token = ""  # the cause may be an expired token, which etcd reports in words
                raise rejection(0, str(result.get("cancel_reason", "the watch was cancelled")))
            if changes := [self._change(each) for each in objects_of(result, "events")]:
                changed(changes)

        with trio.CancelScope() as self._watching:
            token = await self._signed_in(member)
            async with self._stream(member, "watch", {"create_request": create}, token) as response:
                await each_line(response, member, take)
            raise UnreachableError(f"{member}: the watch ended")

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request to a member, or to others if that fails.

        Raises:
            EtcdError: it failed.
        """
        for left in reversed(range(len(self._access.urls))):
            member = self.member
            try:
                return await self._call_signed_in(member, path, body)
            except UnreachableError:
                self.leave(member)
                if not left:
                    raise
        raise AssertionError

    async def _call_signed_in(self, member: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and once more with a new token if the token was rejected."""
        try:
            return await self._call(member, path, body, await self._signed_in(member))
        except TokenError:
            self._token = ""
            return await self._call(member, path, body, await self._signed_in(member))

    async def _signed_in(self, member: str) -> str:
        """Sign in, unless we have a token."""
        if not self._access.user:
            return ""
        async with self._signing_in:
            if not self._token:
                body = {"name": self._access.user, "password": self._access.password}
                try:
                    answer = await self._call(member, "auth/authenticate", body, token="")
                    self._token = str(answer.get("token", ""))
                except EtcdError as error:
                    if _NO_AUTH not in str(error):
                        raise
            return self._token

    async def _call(self, member: str, path: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        try:
            with trio.fail_after(CALL_TIMEOUT):
                async with self._stream(member, path, body, token) as response:
                    return document(member, await content(response, member))
        except trio.TooSlowError:
            raise UnreachableError(f"{member}: no answer within {CALL_TIMEOUT:g} s") from None

    @asynccontextmanager
    async def _stream(self, member: str, path: str, body: dict[str, Any], token: str) -> AsyncIterator[httpx.Response]:
        """Send a request, and provide the response inside the block, where errors are translated."""
        data = json.dumps(body).encode()
        # A member without a leader ends a watch only with this header; otherwise, it is silently out of date.
        headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
        if token:
            headers["Authorization"] = token
        try:
            request = self._client.build_request("POST", f"{member}/v3/{path}", content=data, headers=headers)
            request.stream = Body(data)
            async with aclosing(await self._client.send(request, stream=True)) as response:
                if response.status_code != httpx.codes.OK:
                    text = (await content(response, member)).decode(errors="replace")
                    raise rejection(response.status_code, text, member)
                yield response
        except httpx.TimeoutException:
            raise UnreachableError(f"{member}: no answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ssl.SSLError, OSError) as error:
            host = httpx.URL(member).host
            words = why(error, host, has_certificate=bool(self._access.certificate))
            if self._access.ca and words == CLOSED:  # its alert was lost with the connection
                words += f"; {self._certificate_hint()}"
            raise UnreachableError(f"{member}: {words}") from None

    def _certificate_hint(self) -> str:
        if self._access.certificate:
            return "etcd's log says whether it rejects the certificate in --cluster-cert: expired, or of another CA"
        return "if etcd demands a certificate, give --cluster-cert and --cluster-key"

    # -- keys

    def _full(self, key: str) -> str:
        return _key(self._access.prefix + key)

    def _entry(self, kv: dict[str, Any]) -> Entry:
        return Entry(self._short(kv), bytes_of(kv, "value"), number_of(kv, "mod_revision"))

    def _change(self, event: dict[str, Any]) -> Change:
        kv = object_of(event, "kv")
        deleted = event.get("type") == "DELETE"
        return Change(self._short(kv), number_of(kv, "mod_revision"), None if deleted else self._entry(kv))

    def _short(self, kv: dict[str, Any]) -> str:
        """Return a key without the prefix. A key that is no UTF-8 has escapes, and is unknown to any reader."""
        return bytes_of(kv, "key").decode(errors="backslashreplace").removeprefix(self._access.prefix)


def _key(text: str, *, after: bool = False) -> str:
    """Return a key in base64; `after` for the first key that does not begin with this text."""
    raw = text.encode()
    return base64(raw[:-1] + bytes([raw[-1] + 1]) if after else raw)
