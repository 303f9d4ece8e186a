"""The lock of a guest in a real etcd: which host has it, and how it is lost and acquired again."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from structlog.testing import LogCapture

from tests.cluster.etcd import PREFIX, Etcd
from tests.serving import until
from tests.trio_help import run_in_real_time
from vhostcomm.cluster.address import Access, parse
from vhostcomm.cluster.lock import HeldError, Holder, RunLock
from vhostcomm.log.lean_structlog import structlog

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]
ETCD_MEMBERS = 1

TAKEN, LOST, NOT_TAKEN = "guest's lock acquired", "guest's lock lost", "guest's lock not acquired"
ELSEWHERE = "guest runs on another host too"


class Logged:
    """The log of a lock, whose messages can be awaited."""

    def __init__(self) -> None:
        self._capture = LogCapture()
        self._news = trio.Event()
        self.log: Any = structlog.wrap_logger(
            None, processors=[self._note, self._capture], wrapper_class=structlog.stdlib.BoundLogger
        )

    def _note(self, _: object, __: str, event: Any) -> Any:
        self._news.set()
        return event

    async def next(self) -> Any:
        """Wait for the message after the last one that was awaited."""
        while not self._capture.entries:
            self._news = trio.Event()
            await self._news.wait()
        return self._capture.entries.pop(0)

    async def says(self, event: str) -> Any:
        """Wait for a message after the last one that was awaited."""
        while (entry := await self.next())["event"] != event:
            pass
        return entry


RELEASE_TIMEOUT = 5.0
"""Seconds for a release that etcd still has to carry out; a lease that was just renewed lasts longer."""


def lock(cluster: str, host: str, logged: Logged, guest: str = "nas") -> RunLock:
    return RunLock(Access(*parse(cluster)), guest, host, logged.log)


def locked(etcd: Etcd, test: Callable[[RunLock, Logged], Awaitable[None]]) -> None:
    """Run with the lock of `nas`, which host1 has acquired and keeps."""

    async def body() -> None:
        logged = Logged()
        async with lock(etcd.address, "host1", logged) as made, trio.open_nursery() as nursery:
            assert await made.take()
            nursery.start_soon(made.keep)
            await test(made, logged)
            nursery.cancel_scope.cancel()

    run_in_real_time(body, limit=120)
    until(lambda: holder(etcd) is None, "the end of the lock", RELEASE_TIMEOUT)


def holder(etcd: Etcd) -> dict[str, Any] | None:
    found: dict[str, Any] | None = etcd.records("run/").get("run/nas")
    return found


def ended() -> int:
    """The id of a process that has ended."""
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitpid(pid, 0)
    return pid


def test_one_host_has_the_lock(etcd: Etcd) -> None:
    async def body(first: RunLock, logged: Logged) -> None:
        async with lock(etcd.address, "host2", logged) as second, lock(etcd.address, "host2", logged, "nasty") as other:
            assert await other.take()
            with pytest.raises(HeldError) as caught:
                await second.take()
        assert str(caught.value).startswith("nas runs on host1 since 20")
        assert str(caught.value).endswith(
            "; that host has its lock in etcd (run/nas): shut it down there: vhostcomm shutdown nas; "
            "the lock of a dead host ends after 10 s"
        )
        found = holder(etcd)
        assert found
        assert (found["host"], found["pid"]) == ("host1", os.getpid())
        assert first.holder is None

    locked(etcd, body)


@pytest.fixture
def east_of_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


VALUES = [
    b"mine",
    b'{"host": "host1", "pid": %d}' % os.getppid(),
    b'{"host": "host1", "pid": %d, "since": 253402300799}' % os.getppid(),
]


@pytest.mark.parametrize("value", VALUES, ids=["unreadable", "of this host", "of the year 10000 there"])
@pytest.mark.usefixtures("east_of_greenwich")
def test_any_value_is_a_lock(etcd: Etcd, value: bytes) -> None:
    """This includes the value of a process that runs on this host."""
    etcd.put("run/nas", value)

    async def body() -> None:
        async with lock(etcd.address, "host1", Logged()) as made:
            with pytest.raises(
                HeldError, match=r"^nas runs on (an unknown host|host1); that host has its lock in etcd"
            ):
                await made.take()

    run_in_real_time(body)


def lock_of_a_killed_process(etcd: Etcd) -> None:
    """Write the lock of a process of this host that has ended before its lease."""
    lease = etcd.call("lease/grant", TTL="2")["ID"]
    value = b64encode(b'{"host": "host1", "pid": %d}' % ended()).decode()
    etcd.call("kv/put", key=b64encode(f"{PREFIX}run/nas".encode()).decode(), value=value, lease=lease)


def test_the_lock_of_a_killed_process_of_this_host_is_awaited(etcd: Etcd) -> None:
    lock_of_a_killed_process(etcd)

    async def body() -> None:
        logged = Logged()
        async with lock(etcd.address, "host1", logged) as made:
            assert await made.take()
            await logged.says("waiting for the guest's lock")
            assert (holder(etcd) or {}).get("pid") == os.getpid()

    run_in_real_time(body)


def test_a_guest_that_started_without_etcd_gets_the_lock_of_a_killed_process(etcd: Etcd) -> None:
    """The process ran on this host, so no other host is reported."""
    lock_of_a_killed_process(etcd)

    async def body() -> None:
        logged = Logged()
        async with lock(etcd.address, "host1", logged) as made, trio.open_nursery() as nursery:
            nursery.start_soon(made.keep)
            said = await logged.next()
            assert (said["event"], made.holder) == (TAKEN, None)
            nursery.cancel_scope.cancel()

    run_in_real_time(body)


def test_an_etcd_that_can_not_be_reached_prevents_no_start() -> None:
    async def body() -> None:
        logged = Logged()
        async with lock("etcd://127.0.0.1:9", "host1", logged) as made:
            assert await made.take()
            assert (await logged.says(NOT_TAKEN))["why"] == "http://127.0.0.1:9: Connection refused"

    run_in_real_time(body)


def test_a_lock_of_another_host_is_reported_and_acquired_again(etcd: Etcd) -> None:
    async def body(made: RunLock, logged: Logged) -> None:
        [entry] = etcd.call("kv/range", key=b64encode(f"{PREFIX}run/nas".encode()).decode())["kvs"]
        etcd.put("run/nas", {"host": "host2"})
        etcd.call("lease/revoke", ID=entry["lease"])
        await logged.says(LOST)
        assert (await logged.says(ELSEWHERE))["other_host"] == "host2"
        holders = [made.holder]
        etcd.delete("run/nas")
        await logged.says(TAKEN)
        assert [*holders, made.holder] == [Holder("host2"), None]
        assert (holder(etcd) or {}).get("host") == "host1"

    locked(etcd, body)


def test_a_lost_lock_is_acquired_again_when_etcd_is_back(etcd: Etcd) -> None:
    async def body(made: RunLock, logged: Logged) -> None:
        await trio.to_thread.run_sync(etcd.members[0].kill)
        assert (await logged.says(LOST))["why"] == "its lease has ended"
        assert made.holder is None
        await trio.to_thread.run_sync(etcd.heal)
        await logged.says(TAKEN)
        assert (holder(etcd) or {}).get("host") == "host1"

    locked(etcd, body)
