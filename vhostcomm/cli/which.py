"""The flags that say which guest a snippet is for, and which QEMU."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.flags import ConfigFile, GuestFlags, HostFlags, ServeFlags, Socks, given
from vhostcomm.cli.output import print_error
from vhostcomm.config import Config, GuestConfig
from vhostcomm.errors import ConfigError, QemuError, UsageError
from vhostcomm.load import load

if TYPE_CHECKING:
    from vhostcomm.snippet import Spelling

QEMU_FLAGS = Group("The QEMU", sort_key=0)


@frozen
class Which:
    """Which guest.

    Args:
        name: its name in the configuration.
        sock: guests given as flags.
        config: the file that describes guests.
        host: the host's identity.
        guest: the guest's.
        service: how guests are served.
    """

    name: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            name="--guest",
            group=Group("Guests", sort_key=1),
            help="The guest's name in the configuration; may be left out where there is one guest.",
        ),
    ] = None
    sock: Socks = None
    config: ConfigFile = None
    host: HostFlags = None
    guest: GuestFlags = None
    service: ServeFlags = None

    def find(self) -> tuple[Config, GuestConfig]:
        """The effective configuration, and the guest in it.

        Raises:
            ConfigError: there is no such guest.
        """
        config = load(self.config, socks=self.sock or (), flags=given(self.host, self.guest, self.service))
        for warning in config.warnings:
            print_error(f"vhostcomm: {warning}")
        names = [each.name for each in config.guests]
        if not names:
            raise ConfigError(
                f"{self.config or 'the configuration'} has no guest{f' {self.name!r}' if self.name else ''}: "
                f"give --config with a guest in it, or --sock {self.name or 'nas'}=PATH"
            )
        if self.name is None and len(names) > 1:
            raise ConfigError(f"name one of the guests with --guest: {', '.join(names)}")
        for each in config.guests:
            if self.name in (None, each.name):
                return config, each
        raise ConfigError(
            f"the configuration has no guest {self.name!r}, but {', '.join(names)}: choose one of them with --guest, "
            f"or add [guests.{self.name}] to the file" + (f" {self.config}" if self.config else " of --config")
        )


@frozen
class WhichQemu:
    """Which QEMU arguments are spelt for.

    Args:
        qemu: one to ask.
        qemu_version: of one that isn't here.
    """

    qemu: Annotated[
        str | None,
        Parameter(
            metavar="PROGRAM",
            group=QEMU_FLAGS,
            help="The QEMU to spell for, asked itself; qemu-system-x86_64 if it is installed.",
        ),
    ] = None
    qemu_version: Annotated[
        str | None,
        Parameter(
            metavar="VERSION", group=QEMU_FLAGS, help="Spell for a QEMU of this version, which isn't here; such as 7.2."
        ),
    ] = None

    def spelling(self) -> Spelling:
        """How it is spelt.

        Raises:
            UsageError: both are given.
            QemuError: this QEMU can't be asked, or can't do it.
        """
        from vhostcomm.snippet import Spelling

        if self.qemu and self.qemu_version:
            raise UsageError("--qemu asks a QEMU, --qemu-version does without: give one")
        if self.qemu_version:
            return Spelling.of_version(self.qemu_version)
        if self.qemu is None and shutil.which("qemu-system-x86_64") is None:
            unasked = Spelling.unasked()
            return Spelling(unasked.reconnects, f"not installed here, so it is {unasked.why}")
        return _asked(self.qemu or "qemu-system-x86_64")


def _asked(path: str) -> Spelling:
    """How the QEMU there spells it, by its own word."""
    import trio

    from vhostcomm.cli.serve import first_error
    from vhostcomm.qemu import Program, find_capabilities
    from vhostcomm.qemu.argv import CHANNEL_DRIVERS
    from vhostcomm.snippet import Spelling

    async def ask() -> Spelling:
        can = await find_capabilities(Program(path), try_kvm=False)
        if missing := [each for each in CHANNEL_DRIVERS if each not in can.devices]:
            raise QemuError(f"{path} has no device {missing[0]}; take a QEMU built for x86_64 with it")
        if can.reconnects is None:
            raise QemuError(f"{path} can't reconnect a socket: take QEMU 7.2 or later")
        return Spelling(can.reconnects, f"spelt for {path}, which is {can.version}")

    try:
        return trio.run(ask)
    except BaseExceptionGroup as group:
        raise first_error(group) from None
