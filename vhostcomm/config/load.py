"""Load the configuration: flags override the environment, which overrides a TOML file. Pure, except for reading it.

Unknown keys and invalid values are rejected with their place, the reason, and a valid example.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from vhostcomm.config import values
from vhostcomm.config.address import (
    Activated,
    Address,
    Listen,
    Sock,
    check_path,
    example_socket,
    parse_sock,
    runtime_directory,
)
from vhostcomm.config.identity import HostIdentity, derived_uuid
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import (
    SECTIONS,
    Config,
    GuestConfig,
    Service,
    Value,
    build,
    guest_config,
    settings,
    several,
)
from vhostcomm.config.reading import (
    ENVIRONMENT_PREFIX,
    Flags,
    from_environment,
    from_flags,
    parsed,
    quoted,
    read_file,
    section_of,
    table_of,
)
from vhostcomm.errors import ConfigError


def load(
    file: Path | None = None,
    *,
    socks: Iterable[str] = (),
    watch: Iterable[str | Path] = (),
    flags: Flags | None = None,
    environment: Mapping[str, str] = os.environ,
    activated: Iterable[Sock] = (),
    only: str | None = None,
) -> Config:
    """Load and combine the configuration.

    Args:
        file: a TOML file.
        socks: of ``--sock``.
        watch: of ``--watch``.
        flags: other flags.
        environment: for VHOSTCOMM_… and the runtime directory.
        activated: listening sockets that systemd has passed.
        only: use only the guest with this name of the guests in the file.

    Raises:
        ConfigError: something is invalid; has the place and a valid example.
    """
    document = read_file(file) if file else {}
    folders = [_folder(each, "--watch") for each in watch]
    label = str(file)
    over = [from_environment(environment), from_flags(flags or {})]
    layers: dict[str, dict[str, Value]] = {}
    for section, model in SECTIONS.items():
        in_file = section_of(document.pop(section, {}), section, label, extra=("watch",) if section == "serve" else ())
        watched = in_file.pop("watch", None)
        if watched:
            folders = [*_folders(watched), *folders]
        layers[section] = in_file | {
            name: layer[section, name] for layer in over for name in settings(model) if (section, name) in layer
        }
    host, host_sources = build(HostIdentity, layers["host"])
    service, service_sources = build(Service, layers["serve"])
    if service.control.startswith("tcp:") and not service.control_token:
        raise ConfigError(
            f"{service_sources['control']} is {service.control}: any client that reaches it could stop guests, so TCP "
            f"needs a token: {ENVIRONMENT_PREFIX}CONTROL_TOKEN=$(openssl rand -hex 16)"
        )
    if not host.cluster_uuid:
        host = attrs.evolve(host, cluster_uuid=derived_uuid("h", host.serial))
        host_sources["cluster_uuid"] = "derived from the host's serial number"

    guest_layers: dict[str, dict[str, Value]] = {"": layers["guest"]}
    found = _Socks()
    monitors: dict[str, Value | None] = {}
    machines: dict[str, dict[str, Value]] = {}
    listed = table_of(document.pop("guests", {}), "guests", label)
    if only is not None:
        listed = {name: table for name, table in listed.items() if name == only}
    if document:
        raise ConfigError(
            f"{label}: unknown: {', '.join(map(repr, document))}; known are host, guest, guests and serve"
        )
    for name, table in listed.items():
        monitors[name] = _monitor(table, name, label)
        machines[name] = _machine(table, name, label)
        sock, guest_layers[name] = _listed_guest(name, table, label, environment)
        found.add(sock, f"{label}: guests.{name}")
    for text in socks:
        example = "nas=tcp:127.0.0.1:12345" if _is_tcp(text) else f"nas={example_socket('nas', environment)}"
        sock = parsed(parse_sock, text, "--sock", example, environment)
        found.add(sock, f"--sock {text}")
    configured = set(found.by_name)
    for sock in activated:
        found.activate(sock)
    strangers = tuple(name for name in found.by_name if name not in configured) if file else ()

    own = {name for layer in over for section, name in layer if section == "guest"}
    if own & {"uuid", "serial"} and (len(found.by_name) > 1 or folders):
        names = list(found.by_name)
        whom = f"{len(names)} guest{'' if len(names) == 1 else 's'} ({several(names)})" if names else ""
        appearing = f"every guest that appears in {', '.join(map(str, folders))}" if folders else ""
        raise ConfigError(
            f"the guest's {' and '.join(sorted(own & {'uuid', 'serial'}))} is given for "
            f"{' and '.join(filter(None, (whom, appearing)))}: "
            f'give each its own in a --config file, as [guests.{next(iter(names), "nas")}] serial = "…"'
        )
    # The environment and flags override the file, including a guest's own section.
    for name, layer in guest_layers.items():
        guest_layers[name] = layer | {
            name: value for each in over for (section, name), value in each.items() if section == "guest"
        }
    guests = tuple(
        _with_machine(_monitored(guest_config(sock, guest_layers), monitors), machines, file)
        for sock in found.by_name.values()
    )
    made = Config(host, guests, service, tuple(folders), host_sources, service_sources, guest_layers, strangers)
    _check_together(made)
    return made


def check(config: Config) -> None:
    """Check that there are guests to serve, and that their settings fit together.

    Raises:
        ConfigError: there is none, or they don't.
    """
    if not config.guests and not config.watch:
        raise ConfigError("no guest to serve: add [guests.NAME] to the --config file, or give --sock or --watch")
    _check_together(config)


def _check_together(config: Config) -> None:
    service, sources = config.service, config.service_sources
    if service.record and "{guest}" not in service.record and len(config.guests) + bool(config.watch) > 1:
        raise ConfigError(
            f"{sources['record']}: {service.record!r} is one file, but each guest needs its own recording; "
            "put {guest} into its name"
        )
    if service.qemu_host_api and (len(config.guests) != 1 or config.watch):
        raise ConfigError(
            f"{sources['qemu_host_api']}: qemu-host's API is for one guest, but there are "
            f"{'watched folders' if config.watch else len(config.guests)}: serve that guest with its own process"
        )


def _folders(value: Value) -> list[Path]:
    raw = value.value
    if not isinstance(raw, list):
        raise ConfigError(
            f'{value.source} is {quoted(raw)}: it is a list of folders; for example: watch = ["/run/guests"]'
        )
    return [_folder(each, value.source, 'watch = ["/run/guests"]') for each in raw]


def _folder(raw: object, source: str, example: str = "/run/guests") -> Path:
    return Path(parsed(values.path, raw if not isinstance(raw, Path) else str(raw), source, example)).absolute()


def _is_tcp(raw: object) -> bool:
    return isinstance(raw, str) and "tcp:" in raw


def _listed_guest(
    name: str, table: object, label: str, environment: Mapping[str, str]
) -> tuple[Sock, dict[str, Value]]:
    where = f"guests.{name}"
    parsed(values.name, name, f"{label}: the name of [{where}]", "[guests.nas]")
    layer = section_of(table, "guest", label, ("sock", "qmp", "machine"), where=where)
    layer.pop("qmp", None)
    layer.pop("machine", None)
    given = layer.pop("sock", None)
    if given is None:
        own = layer.get("uuid")
        try:
            path = runtime_directory(environment) / (str(own.value) if own else name)
            check_path(path)
        except ValueError as error:
            raise ConfigError(f'{label}: {where}: {error}; for example: sock = "/run/vhostcomm/{name}"') from None
        return Sock(name, Listen(path), values.uuid_text(own.value) if own else ""), layer
    example = "tcp:127.0.0.1:12345" if _is_tcp(given.value) else str(example_socket(name, environment))
    sock = parsed(parse_sock, given.value, given.source, f'sock = "{example}"', environment)
    return attrs.evolve(sock, name=name), layer


def _monitor(table: object, name: str, label: str) -> Value | None:
    """Parse the QMP socket of a listed guest's QEMU."""
    if not isinstance(table, dict) or "qmp" not in table:
        return None
    source = f"{label}: guests.{name}.qmp"
    return Value(parsed(_socket_path, table["qmp"], source, f'qmp = "/run/qemu/{name}.qmp"'), source)


def _machine(table: object, name: str, label: str) -> dict[str, Value]:
    """Parse the machine of a listed guest."""
    if not isinstance(table, dict) or "machine" not in table:
        return {}
    return section_of(table["machine"], "machine", label, where=f"guests.{name}.machine")


def _with_machine(guest: GuestConfig, machines: Mapping[str, dict[str, Value]], file: Path | None) -> GuestConfig:
    layer = machines.get(guest.name)
    if not layer or file is None:
        return guest
    machine, sources = build(MachineSettings, layer)
    return attrs.evolve(guest, machine=machine.beside(file.absolute().parent), machine_sources=sources)


def _socket_path(raw: object) -> str:
    path = Path(values.path(raw))
    if not path.is_absolute():
        raise ValueError("it is an absolute path of a unix socket")
    check_path(path)
    return str(path)


def _monitored(guest: GuestConfig, monitors: Mapping[str, Value | None]) -> GuestConfig:
    found = monitors.get(guest.name)
    if found is None:
        return guest
    return attrs.evolve(guest, qmp=str(found.value), sources={**guest.sources, "qmp": found.source})


class _Socks:
    """The guests' sockets, each with a unique name and address."""

    def __init__(self) -> None:
        self.by_name: dict[str, Sock] = {}
        self._by_address: dict[Address, str] = {}
        self._by_place: dict[str, str] = {}

    def add(self, sock: Sock, source: str) -> None:
        """Add a guest's socket.

        Raises:
            ConfigError: another guest has its name or address.
        """
        if sock.name in self.by_name:
            raise ConfigError(
                f"{source}: another guest is named {sock.name!r}; give this one a different name: NAME=SOCK"
            )
        if other := self._by_address.get(sock.address):
            raise ConfigError(f"{source}: guest {other!r} already has the socket {sock.address}")
        self._put(sock)

    def _put(self, sock: Sock) -> None:
        self.by_name[sock.name] = sock
        self._by_address[sock.address] = self._by_place[str(sock.address)] = sock.name

    def activate(self, sock: Sock) -> None:
        """Use a socket that systemd passed for the guest with its name or path, or for a new guest.

        Raises:
            ConfigError: that guest already has a socket from systemd.
        """
        assert isinstance(sock.address, Activated)
        other = self.by_name.get(sock.name)
        if other and isinstance(other.address, Activated):
            raise ConfigError(
                f"systemd's sockets {other.address.where} and {sock.address.where} are both for a guest {sock.name!r}: "
                "set a different FileDescriptorName= for each"
            )
        name = self._by_place.get(sock.address.where)
        if other is None and name:
            other = self.by_name[name]
        self._put(attrs.evolve(other, address=sock.address) if other else sock)
