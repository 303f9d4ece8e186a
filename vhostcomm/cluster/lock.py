"""The lock of a guest that `run` starts, so that no second host starts it: `run/GUEST` in etcd, under a lease.

It only ever prevents a start. A guest still starts and runs without etcd, or without its lock.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from typing import Final, Self

import attrs
import trio
from attrs import frozen

from vhostcomm.cluster.address import Access
from vhostcomm.cluster.following import RETRY_MAX, Backoff
from vhostcomm.cluster.gateway import Gateway
from vhostcomm.cluster.lease import LEASE, RENEWAL, Lease, LeaseLostError
from vhostcomm.cluster.records import host_name, json_object, time_in
from vhostcomm.cluster.wire import EtcdError
from vhostcomm.errors import VhostcommError
from vhostcomm.log.logs import Log

PREFIX: Final = "run/"
"""Prefix of the locks' keys."""

ACQUIRE_TIMEOUT: Final = LEASE + RETRY_MAX
"""Seconds to wait for the lock of a killed `run` of this host, which lasts as long as its lease."""

POLL_INTERVAL: Final = 0.5
"""Seconds between looks at that lock."""

_UNLOCKED: Final = "another host could start the guest too"
_NEXT: Final = "the guest runs, and vhostcomm tries again to acquire the lock"


class HeldError(VhostcommError):
    """The guest runs already, as its lock says."""


@frozen
class Holder:
    """A process that has the lock of a guest; the value of its key.

    Args:
        host: the host's name.
        pid: the process; 0 if it is not known.
        since: when it asked for the lock, in seconds since 1970 on that host's clock.
    """

    host: str
    pid: int = 0
    since: float | None = None


class RunLock:
    """The lock of one guest. Use it as an asynchronous context, which releases the lock."""

    def __init__(self, access: Access, guest: str, host: str, log: Log) -> None:
        self._gateway = Gateway(access)
        self._lease = Lease(self._gateway, log)
        self._guest = guest
        self._key = PREFIX + guest
        self._own = Holder(host, os.getpid(), round(time.time(), 3))
        self._log = log
        self._has_it = False
        self._problem = ""
        self.holder: Holder | None = None
        """Another process that has the lock, if that is known."""

    async def __aenter__(self) -> Self:
        await self._gateway.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lease.leave()
        await self._gateway.__aexit__()

    async def take(self) -> bool:
        """Take the lock. If etcd can't be asked, log that, since the guest has to start anyway.

        Returns:
            True.

        Raises:
            HeldError: another process has it.
        """
        deadline = trio.current_time() + ACQUIRE_TIMEOUT
        waiting = False
        try:
            while not await self._try():
                assert self.holder
                is_over = trio.current_time() > deadline
                if is_over or not self._is_own_of_a_killed_run():
                    raise HeldError(
                        f"{self._guest} runs on {self.holder.host}{_since(self.holder)}; that host has its lock in etcd "
                        f"({self._key}): shut it down there: vhostcomm shutdown {self._guest}; the lock of a dead host "
                        f"ends after {LEASE} s"
                    )
                if not waiting:
                    waiting = True
                    self._log.info(
                        "waiting for the guest's lock", why="a killed run of this host had it", seconds=LEASE
                    )
                await trio.sleep(POLL_INTERVAL)
        except EtcdError as error:
            self._failed(error)
        return True

    async def keep(self) -> None:
        """Keep the lock, and take it again when it was lost, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                if self._has_it:
                    await trio.sleep(RENEWAL)
                    await self._lease.renew()
                    self._problem = ""
                    continue
                if await self._try():
                    backoff.reset()
                    self._problem = ""
                    self._log.info("guest's lock acquired")
                    continue
                if self._is_own_of_a_killed_run():
                    self.holder = None
                else:
                    self._report_holder()
            except LeaseLostError:
                self._has_it = False
                self._problem = "its lease has ended"
                self._log.warning("guest's lock lost", why=self._problem, consequence=_UNLOCKED, next=_NEXT)
            except EtcdError as error:
                if self._has_it:  # until the lease ends
                    self._log.debug("lease not renewed", why=str(error))
                else:
                    self._failed(error)
            except Exception:  # noqa: BLE001 - QEMU runs beside this task, and would end with it
                self._log.exception("internal error in the exchange with the cluster; please report it")
            await backoff.wait()

    def _is_own_of_a_killed_run(self) -> bool:
        """Whether the holder is a process of this host that has ended: its lock lasts as long as its lease."""
        assert self.holder
        return self.holder.host == self._own.host and not _runs(self.holder.pid)

    def _report_holder(self) -> None:
        assert self.holder
        if self._problem != self.holder.host:
            self._problem = self.holder.host
            self._log.error(
                "guest runs on another host too", other_host=self.holder.host,
                remedy="the same disks may be in use twice: shut one of them down",
            )  # fmt: skip

    async def _try(self) -> bool:
        """Take the lock, or set `holder`."""
        key, value = self._key, json.dumps(attrs.asdict(self._own)).encode()
        await self._lease.begin()
        while True:
            self._has_it = await self._gateway.transact({key: value}, lease=self._lease.number, only_mine=key)
            if self._has_it:
                self.holder = None
                return True
            for each in (await self._gateway.range(key))[0]:
                if each.key == key:
                    self.holder = parse_holder(each.value)
                    return False
            # It was released meanwhile.

    def _failed(self, error: EtcdError) -> None:
        self.holder = None
        if not self._problem:
            self._problem = str(error)
            self._log.warning("guest's lock not acquired", why=self._problem, consequence=_UNLOCKED, next=_NEXT)


def parse_holder(value: bytes) -> Holder:
    """Parse the value of a lock. An invalid value counts as a lock of an unknown host."""
    try:
        document = json_object(value)
        pid = document.get("pid")
        return Holder(
            host_name(document.get("host")), pid if type(pid) is int and pid > 0 else 0, time_in(document, "since")
        )
    except ValueError:
        return Holder("an unknown host")


def _runs(pid: int) -> bool:
    """Return whether a process of this host other than this one runs."""
    if pid in {0, os.getpid()}:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _since(holder: Holder) -> str:
    if holder.since is None:
        return ""
    try:
        return datetime.fromtimestamp(holder.since).astimezone().strftime(" since %Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # the last hours of the year 9999, east of Greenwich
        return ""
