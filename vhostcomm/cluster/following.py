"""Follow a cluster's tree: read it whole, then watch its changes; again, whenever a watch ends. Or read its hosts once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from vhostcomm.cluster.address import Access
from vhostcomm.cluster.gateway import Change, Entry, Gateway
from vhostcomm.cluster.records import HOSTS, HostRecord, Record, RecordError, Trouble, View, parse_record
from vhostcomm.cluster.tree import Tree, is_configuration
from vhostcomm.cluster.wire import CompactedError, EtcdError, TokenError, UnreachableError
from vhostcomm.linux.threads import in_slices
from vhostcomm.log.logs import Log

RETRY_FIRST: Final = 0.2
RETRY_MAX: Final = 5.0
"""Seconds before a failed step is tried again: doubled up to this maximum."""

INVALID_LOGGED: Final = 32
"""Maximum keys of invalid records to log: a tree may have any number of them."""


class Backoff:
    """Pauses between tries, which grow until one succeeds."""

    def __init__(self) -> None:
        self._pause = RETRY_FIRST

    def reset(self) -> None:
        self._pause = RETRY_FIRST

    async def wait(self) -> None:
        await trio.sleep(self._pause)
        self._pause = min(2 * self._pause, RETRY_MAX)


class Observer:
    """Sees the changes of a cluster's records, after the view has them. A subclass has the methods that it needs."""

    def replaced(self) -> None:
        """Note that the view was read anew."""

    def heard(self, record: Record) -> None:
        """Note a record that was written just now."""

    def removed(self, key: str) -> None:
        """Note that a record was deleted."""


class Following:
    """What is known of a cluster's tree.

    Args:
        view: kept up to date with the records of hosts.
        offer: called with the configuration's part whenever it has changed.
        observers: see the changes of the records, in this order.
    """

    def __init__(self, view: View, offer: Callable[[Tree], None], observers: Sequence[Observer], log: Log) -> None:
        self._view = view
        self._offer = offer
        self._observers = observers
        self._log = log
        self._values: dict[str, bytes] | None = None
        self._problem: type[EtcdError] | None = None
        self._invalid: set[str] = set()

    async def run(self, gateway: Gateway) -> None:
        """Follow the tree, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._follow(gateway, backoff)
            except CompactedError as error:
                self._log.debug("reading the tree again", why=str(error))
            except TokenError as error:
                self._log.debug("signing in again", why=str(error))
                await backoff.wait()
            except EtcdError as error:
                self._failed(error)
                await backoff.wait()

    async def _follow(self, gateway: Gateway, backoff: Backoff) -> None:
        entries, revision = await gateway.range()
        await self._replace(entries, revision)
        self._reached(gateway, revision)
        backoff.reset()
        member = gateway.member
        try:
            await gateway.watch(revision + 1, self._apply)
        except UnreachableError:
            gateway.leave(member)
            raise

    # -- the tree

    async def _replace(self, entries: list[Entry], revision: int) -> None:
        values, records = {}, []
        async for each in in_slices(entries):
            if is_configuration(each.key):
                values[each.key] = each.value
            elif record := self._record(each):
                records.append(record)
        self._view.replace(records)
        for observer in self._observers:
            observer.replaced()
        if values != self._values:
            self._values = values
            self._offer(Tree(dict(values), revision))

    def _apply(self, changes: list[Change]) -> None:
        offered = False
        assert self._values is not None
        for each in changes:
            if is_configuration(each.key):
                offered = True
                if each.entry is None:
                    self._values.pop(each.key, None)
                else:
                    self._values[each.key] = each.entry.value
            elif each.entry is None:
                self._view.remove(each.key)
                for observer in self._observers:
                    observer.removed(each.key)
            elif record := self._record(each.entry):
                self._view.put(record)
                for observer in self._observers:
                    observer.heard(record)
        if offered:
            self._offer(Tree(dict(self._values), changes[-1].revision))

    def _record(self, entry: Entry) -> Record | None:
        if entry.key.startswith("run/"):
            return None
        try:
            return parse_record(entry.key, entry.value, entry.revision)
        except RecordError as error:
            if entry.key not in self._invalid and len(self._invalid) < INVALID_LOGGED:
                self._invalid.add(entry.key)
                self._log.warning("record of a host ignored", why=str(error))
            return None

    # -- reports

    def _reached(self, gateway: Gateway, revision: int) -> None:
        if Trouble.UNREACHED in self._view.troubles:
            self._log.info("cluster reached", member=gateway.member, revision=revision)
        self._problem = None
        self._view.report(Trouble.UNREACHED, "", 0.0)

    def _failed(self, error: EtcdError) -> None:
        self._view.report(Trouble.UNREACHED, str(error), time.time())
        if type(error) is not self._problem:
            self._problem = type(error)
            self._log.warning(
                "cluster not reached",
                why=str(error),
                next="guests are served with the last accepted tree; vhostcomm tries again",
            )


async def hosts_of(access: Access) -> list[HostRecord]:
    """Return the hosts whose daemons run, by name. Invalid records are left out.

    Raises:
        EtcdError: no member answers.
    """
    found = []
    async with Gateway(access) as gateway:
        for each in (await gateway.range(HOSTS))[0]:
            with suppress(RecordError):  # the daemons log it
                record = parse_record(each.key, each.value)
                assert isinstance(record, HostRecord)
                found.append(record)
    return found
