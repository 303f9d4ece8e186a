"""A lease in etcd: keys under it vanish soon after this process ends, however it ends."""

from __future__ import annotations

from typing import Final

import trio

from vhostcomm.cluster.following import Backoff
from vhostcomm.cluster.gateway import Gateway
from vhostcomm.cluster.wire import EtcdError, UnreachableError
from vhostcomm.log.logs import Log

LEASE: Final = 10
"""Seconds of a lease: a dead host's keys vanish after that."""

RENEWAL: Final = LEASE / 4
"""Seconds between renewals. A failed one also shows that the member of a silent watch hangs."""

LEAVE_TIMEOUT: Final = 0.5
"""Seconds to delete the keys at the end. Without it, they vanish with the lease."""


class LeaseLostError(Exception):
    """The lease has ended, and its keys with it."""


class Lease:
    """A lease, or none yet."""

    def __init__(self, gateway: Gateway, log: Log) -> None:
        self._gateway = gateway
        self._log = log
        self._until = 0.0
        self.number = 0
        """0 without a lease."""

    async def begin(self) -> None:
        """Make a new lease. A former one is ended first, which would keep its keys taken.

        Raises:
            EtcdError: it failed.
        """
        await self.end()
        self._until = trio.current_time() + LEASE  # from before the request: it may have been granted at once
        self.number = await self._gateway.grant(LEASE)

    async def renew(self) -> None:
        """Renew the lease; try again until it has ended.

        Raises:
            LeaseLostError: it has ended.
            EtcdError: etcd rejects the request.
        """
        backoff = Backoff()
        while True:
            asked = trio.current_time()
            if asked >= self._until:
                raise LeaseLostError
            try:
                seconds = await self._gateway.keep_alive(self.number)
            except UnreachableError as error:
                self._log.debug("lease not renewed", why=str(error))
                await backoff.wait()
                continue
            if not seconds:
                raise LeaseLostError
            self._until = asked + seconds
            return

    async def end(self) -> None:
        """End the lease, if there is one.

        Raises:
            UnreachableError: no member answers.
        """
        if number := self.number:
            try:
                await self._gateway.revoke(number)
            except UnreachableError:
                raise
            except EtcdError as error:
                self._log.debug("former lease not ended", why=str(error))  # it has ended by itself
            self.number = 0  # a cancelled request leaves it, to be tried again

    async def leave(self) -> None:
        """End the lease at the end of the process, if etcd answers at once; also in a cancelled task."""
        with trio.move_on_after(LEAVE_TIMEOUT, shield=True):
            try:
                await self.end()
            except EtcdError as error:
                self._log.debug("keys not deleted", why=str(error))
