"""The flags that select the guest of a snippet, its unit and its QEMU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

import attrs
from attrs import frozen
from cyclopts import Group, Parameter

from vhostcomm.cli.flags import (
    USED,
    USED_BY_PROXMOX,
    USED_BY_SCRIPT,
    ConfigFiles,
    ProxmoxFlags,
    ScriptFlags,
    SettingFlags,
    Socks,
    UsedFlags,
    given,
)
from vhostcomm.cli.guest_folder import files_of, shown
from vhostcomm.cli.output import print_remark
from vhostcomm.cli.versions import QEMU
from vhostcomm.config import values
from vhostcomm.config.address import Listen, ListenTcp, runtime_directory
from vhostcomm.config.http_address import control_address
from vhostcomm.config.identity import ZERO_SERIAL, derived_uuid
from vhostcomm.config.load import check, load
from vhostcomm.config.models import Config, GuestConfig
from vhostcomm.errors import ConfigError, QemuError, UsageError
from vhostcomm.systemd import units

if TYPE_CHECKING:
    from vhostcomm.qemu.capabilities import Capabilities
    from vhostcomm.snippet.parts import Spelling

QEMU_FLAGS = Group("The QEMU", sort_key=0)
UNIT_FLAGS = Group("The unit", sort_key=0)


@Parameter(name="*")
@frozen
class GuestSelection:
    """The guest's selection, as given in flags."""

    name: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            name="--guest",
            group=Group("Guests", sort_key=1),
            help="The guest's name in the configuration; optional if there is one guest.",
        ),
    ] = None
    sock: Socks = None
    config: ConfigFiles = None
    settings: SettingFlags = None

    def find(self, environment: Mapping[str, str] | None = None, *, sock: str = "PATH") -> tuple[Config, GuestConfig]:
        """Return the effective configuration and the guest in it.

        Args:
            environment: of the daemon; by default the service's, whatever the user's own environment is.
            sock: what to suggest for a guest's `--sock`.

        Raises:
            ConfigError: there is no such guest.
        """
        config = load(
            self.config,
            socks=self.sock or (),
            flags=given(self.settings),
            environment=of_service() if environment is None else environment,
        )
        for warning in config.warnings:
            print_remark(warning)
        names = [each.name for each in config.guests]
        if not names:
            raise ConfigError(
                f"{shown(self.config or ())} has no guest{f' {self.name!r}' if self.name else ''}: "
                f"give --config with a guest in it, or --sock {self.name or 'nas'}={sock}"
            )
        if self.name is None and len(names) > 1:
            raise ConfigError(f"name one of the guests with --guest: {', '.join(names)}")
        for each in config.guests:
            if self.name in (None, each.name):
                return config, each
        assert self.name is not None
        raise ConfigError(
            f"the configuration has no guest {self.name!r}, only {', '.join(names)}: choose one of them with --guest, "
            f"or add [guests.{values.key(self.name)}] to the file {shown(self.config) if self.config else 'of --config'}"
        )


@frozen
class ServedGuest:
    """A guest and the service that serves it.

    Args:
        config: the effective configuration.
        guest: the guest, with the address that QEMU uses.
        unit: the unit, of `units.NAMES`, or `NO_UNIT`.
        service: the service that serves the guest, or "".
        name: the daemon's name for the guest.
        control: the daemon's control surface.
    """

    config: Config
    guest: GuestConfig
    unit: str
    service: str
    name: str
    control: Listen | ListenTcp | None

    @property
    def is_held(self) -> bool:
        """Whether systemd owns the socket."""
        return self.unit in {units.SOCKET, units.SOCKET_ONE}


NO_UNIT: Final = "none"

if TYPE_CHECKING:
    Unit: TypeAlias = str | None
    ExternalUnit: TypeAlias = str | None
else:  # without None, as which cyclopts would read the word "none"
    Unit = Literal[*units.NAMES]
    ExternalUnit = Literal[*units.NAMES, NO_UNIT]

_UNITS: Final = (
    "vhostcomm.service for all guests of a file (default with --config), vhostcomm@.service for one guest by its UUID "
    "(default with --sock UUID), vhostcomm-run@.service for the launcher; vhostcomm-guest@.socket and "
    "vhostcomm@.socket if systemd holds the socket"
)


def _unit(help: str) -> Any:
    return Parameter(metavar="UNIT", show_choices=False, group=UNIT_FLAGS, help=help)


@frozen
class UnitSelection(GuestSelection):
    """The selection of a guest and of the systemd unit that serves it."""

    unit: Annotated[Unit, _unit(f"{_UNITS}.")] = None

    def all_guests(self) -> Config | None:
        """Return the effective configuration of the unit for all guests of a file; None if a guest is to be named.

        Raises:
            ConfigError: the file is invalid.
            UsageError: the unit would ignore a flag, since it reads only the file, or there is no file.
        """
        if self.config is None and self.unit in {units.SERVE, units.SOCKET}:
            raise UsageError(
                f"{self.unit} serves the guests of a file: give it with --config; without a file, use "
                f"--unit {units.SERVE_ONE} --sock UUID"
            )
        if self.config is None or self.name is not None or self.unit not in {None, units.SERVE}:
            return None
        self.check_settings(units.SERVE)
        config = load(self.config, environment=of_service())
        check(config)
        for warning in config.warnings:
            print_remark(warning)
        return config

    def check_settings(self, unit: str) -> None:
        """Reject flags of settings that a unit ignores.

        Raises:
            UsageError: the unit reads only the file, or is a socket.
        """
        flags = [*given(self.settings), *(["sock"] if self.sock and unit == units.SERVE else [])]
        given_flags = ", ".join(f"--{flag}" for flag in flags)
        if flags and self.config and unit in {units.SERVE, units.SOCKET}:
            raise UsageError(f"{given_flags}: {units.SERVE} reads only {shown(self.config)}: put the setting there")
        if flags and unit == units.SOCKET_ONE:
            raise UsageError(f"{given_flags}: {unit} has no settings: give it with --unit {units.SERVE_ONE}")

    def served(self, default: str = units.SERVE) -> ServedGuest:
        """Return the guest with the addresses of its service.

        Args:
            default: the unit of a guest that is neither in a file nor given by its UUID alone.

        Raises:
            ConfigError: there is no such guest.
            UsageError: the unit serves no single guest, or not this one, or has another socket than --sock.
        """
        environment = os.environ if self.unit == NO_UNIT else of_service()
        by_uuid = (self.unit or default) in units.BY_UUID
        config, guest = self.find(environment, sock="UUID" if by_uuid else "PATH")
        unit = self.unit or self._unit_of(guest, default)
        try:
            if unit == NO_UNIT:
                control = control_address(config.service.control, environment)
                return ServedGuest(config, guest, unit, "", guest.name, control)
            place = units.place(unit, guest.name, guest.identity.uuid, runtime=runtime_directory(environment))
            control = control_address(config.service.control, {"RUNTIME_DIRECTORY": str(place.runtime)})
        except ValueError as error:
            raise UsageError(f"guest {guest.name}: {error}") from None
        if place.sock:
            _check_fixed(guest, unit, place.sock, runtime_directory(environment))
            guest = attrs.evolve(guest, address=Listen(place.sock))
        return ServedGuest(config, guest, unit, place.service, place.name, control)

    def _unit_of(self, guest: GuestConfig, default: str) -> str:
        if self.config:
            return units.SERVE
        bare = [str(each).rpartition("=")[2] for each in self.sock or ()]
        match guest.address:
            case Listen(path) if path.name in bare and values.uuid_of(path.name):
                return units.SERVE_ONE
        return default


def _check_fixed(guest: GuestConfig, unit: str, sock: Path, runtime: Path) -> None:
    """Reject a `--sock` that isn't the socket of the guest's unit, which determines the path.

    Args:
        guest: with the address that was given.
        unit: its unit.
        sock: the unit's socket.
        runtime: the directory of sockets without a path.
    """
    source, uuid = guest.sources["sock"], guest.identity.uuid
    named = ""
    match guest.address:
        case Listen(path) if path == sock:
            return
        case Listen(path) if path.parent == runtime:
            named = values.uuid_of(path.name)
    if named == sock.name or not source.startswith("--sock "):
        return
    if named and sock.name == uuid:
        where = guest.sources["uuid"].removeprefix("environment ")
        raise UsageError(f"{source}: {where} has another UUID, {uuid}: give the same in both, or leave out {where}")
    if uuid == derived_uuid("g", ZERO_SERIAL):  # nobody has given a UUID or serial number
        uuid = "UUID"
    shown_sock = str(sock).replace(guest.identity.uuid, uuid)
    one = f"--sock {uuid} or " if unit != units.SOCKET else ""
    raise UsageError(
        f"{source}: the socket of {unit} is fixed, {shown_sock}: give {one}the guest in a file with --config"
    )


@frozen
class ExternalSelection(UnitSelection):
    """The selection of a guest whose QEMU another program runs, and of the unit that serves it."""

    unit: Annotated[ExternalUnit, _unit(f"{_UNITS}; none for a daemon that you start yourself.")] = None
    settings: UsedFlags = None
    used: ClassVar = USED

    def of_folder(self, folder: str | None) -> Self:
        """Return the selection of the guest in a directory that `install` made; unchanged without a directory."""
        return self if folder is None else attrs.evolve(self, config=files_of(folder, self.config))

    def reject_unused(self, unit: str, *, whole: bool = False) -> None:
        """Reject flags of settings that the snippet doesn't use.

        Args:
            unit: the guest's; only the units of one guest have its UUID in their paths.
            whole: whether the snippet is a whole machine, which has the UUID.

        Raises:
            UsageError: a flag concerns only the daemon.
        """
        used = self.used - ({"guest-uuid", "guest-serial"} if not whole and unit not in units.BY_UUID else set())
        if unused := ", ".join(f"--{flag}" for flag in given(self.settings) if flag not in used):
            raise UsageError(
                f"{unused}: only the daemon uses that: give it to `vhostcomm serve`, or write it into its file"
            )

    def external(self) -> ServedGuest:
        """Return the same as `served`.

        Raises:
            ConfigError: as `served`.
            UsageError: as `served`, or the unit starts the QEMU itself.
        """
        if self.unit == units.RUN:
            raise UsageError(f"{units.RUN} starts the guest's QEMU itself, so there is nothing to paste elsewhere")
        return self.served()

    def words(self) -> list[str]:
        """Return the flags that select the same guest for another kind of snippet."""
        words = [word for each in self.config or () for word in ("--config", str(each.absolute()))]
        words += [word for each in self.sock or () for word in ("--sock", str(each))]
        words += ["--guest", self.name] if self.name else []
        words += ["--unit", self.unit] if self.unit else []
        control = given(self.settings).get("control")
        return words + (["--control", str(control)] if control else [])


@frozen
class ScriptSelection(ExternalSelection):
    """The same, for a script that asks the guest's daemon."""

    settings: ScriptFlags = None
    used: ClassVar = USED_BY_SCRIPT


@frozen
class ProxmoxSelection(ExternalSelection):
    """The same, for a guest whose QEMU and script Proxmox VE runs."""

    settings: ProxmoxFlags = None
    used: ClassVar = USED_BY_PROXMOX


def of_service() -> dict[str, str]:
    """Return the environment with the service's runtime directory: snippets are for the service, not for its user."""
    return {"RUNTIME_DIRECTORY": str(units.RUNTIME)} | os.environ


@Parameter(name="*", group=QEMU_FLAGS)
@frozen
class QemuSelection:
    """The selection of the QEMU for which arguments are spelt.

    Args:
        qemu: a QEMU to query.
        qemu_version: the version of a QEMU that isn't on this host.
    """

    qemu: Annotated[
        str | None,
        Parameter(
            metavar="PROGRAM",
            help="The QEMU to print for; vhostcomm asks for its version. By default qemu-system-x86_64, if installed.",
        ),
    ] = None
    qemu_version: Annotated[
        str | None,
        Parameter(
            metavar="VERSION",
            help="Print for a QEMU of this version that isn't on this host; such as 7.2.",
        ),
    ] = None

    def asked(self) -> tuple[Spelling, Capabilities]:
        """Return the spelling and the capabilities: queried, or those expected of a version.

        Raises:
            UsageError: both are given.
            QemuError: this QEMU can't be queried, or has no vchannel.
        """
        from vhostcomm.qemu.capabilities import Capabilities, Program
        from vhostcomm.snippet.parts import Spelling

        if self.qemu and self.qemu_version:
            raise UsageError("--qemu queries a QEMU, --qemu-version doesn't: give only one")
        path = self.qemu or QEMU
        if self.qemu_version:
            spelling = Spelling.of_version(self.qemu_version)
        elif self.qemu is None and shutil.which(path) is None:
            unasked = Spelling.unasked()
            spelling = Spelling(unasked.reconnects, f"not installed here, so it is {unasked.why}")
        else:
            import trio

            from vhostcomm.qemu.argv import CHANNEL_DRIVERS
            from vhostcomm.qemu.detect import find_capabilities

            can = trio.run(partial(find_capabilities, Program(path), try_kvm=False))
            if missing := [each for each in CHANNEL_DRIVERS if each not in can.devices]:
                raise QemuError(f"{path} has no device {missing[0]}; use QEMU 7.2 or later for x86_64")
            if can.reconnects is None:
                raise QemuError(f"{path} can't reconnect a socket: use QEMU 7.2 or later")
            return Spelling(can.reconnects, f"written for {path}, which is {can.version}"), can
        return spelling, Capabilities.assumed(Program(path), spelling.reconnects)
