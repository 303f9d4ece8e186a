"""Publish what this host has, under a lease: the records vanish soon after this process does."""

from __future__ import annotations

import time
from itertools import islice
from typing import Final

import attrs
import trio

from vhostcomm.cluster.following import RETRY_MAX, Backoff
from vhostcomm.cluster.gateway import Gateway
from vhostcomm.cluster.lease import LEASE, RENEWAL, Lease, LeaseLostError
from vhostcomm.cluster.records import HostRecord, Record, ServingRecord, Trouble, View, format_record
from vhostcomm.cluster.wire import EtcdError, UnreachableError
from vhostcomm.log.logs import Log

BATCH: Final = 64
"""Changes of a transaction; etcd allows 128."""


class _NameTakenError(Exception):
    """Another daemon publishes under this host's name."""


class Publishing:
    """The records of this host. `view` gets the troubles with them."""

    def __init__(self, host: HostRecord, view: View, log: Log) -> None:
        self._host = host
        self._view = view
        self._log = log
        self._wanted: dict[str, ServingRecord] = {}
        self._published: dict[str, ServingRecord] = {}
        self._changed: dict[str, None] = {}
        """Keys whose record is not published as wanted, the longest waiting first."""
        self._news = trio.Event()
        self._problem = ""
        self._taken = 0.0
        """Since when another lease has this host's record; 0 if none has."""

    def put(self, record: ServingRecord) -> None:
        """Publish a record soon, if it differs from the published one."""
        if self._wanted.get(record.key) != record:
            self._wanted[record.key] = record
            self._note(record.key)

    def drop(self, key: str) -> None:
        """Delete a record soon."""
        if self._wanted.pop(key, None):
            self._note(key)

    def _note(self, key: str) -> None:
        self._changed[key] = None
        self._news.set()

    async def run(self, gateway: Gateway) -> None:
        """Publish, until cancelled; then the records are deleted, if etcd answers at once."""
        backoff, lease = Backoff(), Lease(gateway, self._log)
        try:
            while True:
                try:
                    await self._publish(gateway, lease, backoff)
                except LeaseLostError:
                    self._log.info("lease ended, publishing again")
                except _NameTakenError:
                    # The records of this daemon before a kill last as long as their lease.
                    self._taken = self._taken or trio.current_time()
                    if trio.current_time() > self._taken + LEASE + RETRY_MAX:
                        self._failed(f"another daemon publishes as {self._host.host}; give each its own --cluster-host")
                except UnreachableError as error:
                    self._log.debug("not published", why=str(error))  # the watch reports it
                except EtcdError as error:
                    self._failed(str(error))
                await backoff.wait()
        finally:
            await lease.leave()

    async def _publish(self, gateway: Gateway, lease: Lease, backoff: Backoff) -> None:
        await lease.begin()
        if not await gateway.transact(
            {self._host.key: self._value(self._host)}, lease=lease.number, only_mine=self._host.key
        ):
            raise _NameTakenError
        self._taken = 0.0
        if self._problem:
            self._log.info("published again")
            self._problem = ""
        self._view.report(Trouble.UNPUBLISHED, "", 0.0)  # perhaps reported before this task was started again
        backoff.reset()
        self._published = {}
        self._changed = dict.fromkeys(self._wanted)
        self._news.set()
        renewal = trio.current_time() + RENEWAL
        while True:
            with trio.move_on_at(renewal):
                await self._news.wait()
            if trio.current_time() >= renewal:
                await lease.renew()
                renewal = trio.current_time() + RENEWAL
            elif not self._changed:
                self._news = trio.Event()
            else:
                await self._send_batch(gateway, lease.number)

    async def _send_batch(self, gateway: Gateway, lease: int) -> None:
        keys = [*islice(self._changed, BATCH)]
        puts = {key: record for key in keys if (record := self._wanted.get(key))}
        puts = {key: record for key, record in puts.items() if self._published.get(key) != record}
        deletes = [key for key in keys if key not in self._wanted and key in self._published]
        if puts or deletes:
            values = {key: self._value(record) for key, record in puts.items()}
            try:
                await gateway.transact(values, deletes, lease)
            except EtcdError as error:
                if "lease not found" in str(error):
                    raise LeaseLostError from None
                raise
        self._published |= puts
        for key in deletes:
            del self._published[key]
        for key in keys:
            if self._wanted.get(key) == self._published.get(key):
                self._changed.pop(key, None)

    def _value(self, record: Record) -> bytes:
        return format_record(attrs.evolve(record, written=round(time.time(), 3)))

    def _failed(self, why: str) -> None:
        if why != self._problem:
            self._problem = why
            self._view.report(Trouble.UNPUBLISHED, why, time.time())
            self._log.warning("this host's records not published", why=why, next="vhostcomm tries again")
