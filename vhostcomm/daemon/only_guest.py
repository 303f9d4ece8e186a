"""The HTTP API of qemu-host for a daemon's only guest."""

from __future__ import annotations

from contextlib import ExitStack

from vchannel import Command, GuestCommand
from vhostcomm.channel.calls import CallError, Outcome
from vhostcomm.channel.sockets import group_id
from vhostcomm.config.address import Listen
from vhostcomm.config.http_address import parse_api
from vhostcomm.config.models import Service
from vhostcomm.control.admission import own_names
from vhostcomm.control.listener import HttpListener
from vhostcomm.daemon.freezer import Freezer
from vhostcomm.daemon.opening import ServedPort, make_runtime_directory
from vhostcomm.daemon.ports import Ports
from vhostcomm.log.logs import Log
from vhostcomm.qemu_host.api import QemuHostApi


class OnlyGuest:
    """Serves the API, if it has an address. It names no guest, so the daemon has one at most.

    `timeout` is in seconds, for a guest's answer if a request has no timeout.
    """

    def __init__(self, service: Service, ports: Ports, freezer: Freezer, log: Log, timeout: float) -> None:
        self._service = service
        self._ports = ports
        self._freezer = freezer
        self._log = log
        self._timeout = timeout

    def listen(self, cleanup: ExitStack) -> HttpListener | None:
        """Listen until the end of `cleanup`, if there is an address.

        Raises:
            ServeError: that is impossible; says why and what to do.
        """
        if not self._service.qemu_host_api:
            return None
        address = parse_api(self._service.qemu_host_api)
        if isinstance(address, Listen):
            make_runtime_directory(address.path.parent, self._service)
        made = HttpListener(address, self._service.socket_mode, group_id(self._service.socket_group))
        cleanup.callback(made.close)
        return made

    async def serve(self, listener: HttpListener) -> None:
        """Serve requests until cancelled."""
        api = QemuHostApi(
            self._ask,
            self._notify,
            self._log,
            self._timeout,
            names=own_names(parse_api(self._service.qemu_host_api)),
            allow_dangerous=self._service.allow_dangerous,
        )
        await api.serve(listener)

    async def _ask(self, command: Command, timeout: float, by: str) -> bytes:
        guest = self._served(command).port.guest
        return (await self._freezer.ask(guest, command, timeout=timeout, by=by)).data

    async def _notify(self, command: Command, timeout: float, by: str) -> None:
        if command in {GuestCommand.FS_FREEZE, GuestCommand.FS_UNFREEZE}:
            # Their outcome has to be known: a frozen guest is owed a thaw.
            await self._ask(command, timeout, by)
            return
        port = self._served(command).port
        await self._freezer.before_end(port.guest, command, timeout=timeout, by=by)
        await port.asker.send(command, timeout=timeout, by=by)

    def _served(self, command: Command) -> ServedPort:
        for served in self._ports.all:
            return served
        raise CallError(command, Outcome.NOT_CONNECTED, "no guest is served now")
