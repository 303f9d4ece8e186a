"""Load the configuration: flags override the environment, which overrides TOML files. Pure, except for reading them.

Unknown keys and invalid values are rejected with their place, the reason, and a valid example.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from vhostcomm.config import values
from vhostcomm.config.address import (
    Activated,
    Listen,
    ListenTcp,
    Sock,
    check_path,
    parse_sock,
    runtime_directory,
)
from vhostcomm.config.collecting import Mistakes
from vhostcomm.config.files import Listed, Merged, example_sock, merge
from vhostcomm.config.http_address import TLS, control_address, is_of_this_machine, parse_api, web_address
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
from vhostcomm.config.reading import ENVIRONMENT_PREFIX, Flags, from_environment, from_flags, parsed, quoted
from vhostcomm.errors import ConfigError
from vhostcomm.text import counted


def load(
    files: Path | Sequence[Path] | None = None,
    *,
    socks: Iterable[str] = (),
    watch: Iterable[str | Path] = (),
    flags: Flags | None = None,
    environment: Mapping[str, str] = os.environ,
    activated: Iterable[Sock] = (),
    only: str | None = None,
    under: Merged | None = None,
) -> Config:
    """Load and combine the configuration.

    Args:
        files: TOML files, and directories of them. A later file overrides an earlier one, key by key.
        socks: of ``--sock``.
        watch: of ``--watch``.
        flags: other flags.
        environment: for VHOSTCOMM_… and the runtime directory.
        activated: listening sockets that systemd has passed.
        only: use only the guest with this name of the guests in the files.
        under: settings common to several hosts, which the files override, key by key. It is changed.

    Raises:
        ConfigError: something is invalid; has the place and a valid example of all that is. Settings of [serve] that
            don't fit the number of guests, and flags without effect, are looked for once each value is valid.
    """
    mistakes = Mistakes()
    paths = [files] if isinstance(files, Path) else list(files or ())
    common = {name: dict(each.identity) for name, each in under.guests.items()} if under else {}
    merged = merge(paths, environment, mistakes, only, under)
    watched = list(_watched(merged.watch, watch, mistakes))
    folders = [folder for folder, _ in watched]
    over = [from_environment(environment, mistakes), from_flags(flags or {}, mistakes)]
    found = _Socks()
    for each in merged.guests.values():
        with mistakes:
            if each.sock is None:
                found.add(_default_sock(each, environment), each.where)
            elif isinstance(each.sock.value, Sock):
                found.add(attrs.evolve(each.sock.value, name=each.name), each.where, each.sock.source)
    for text in socks:
        with mistakes:
            sock = parsed(parse_sock, text, "--sock", f"nas={example_sock('nas', text, environment)}", environment)
            found.add(sock, f"--sock {text}", f"--sock {text}")
    configured = set(found.by_name)
    for sock in activated:
        with mistakes:
            found.activate(sock)
    layers = {
        section: merged.sections[section]
        | {name: layer[section, name] for layer in over for name in settings(model) if (section, name) in layer}
        for section, model in SECTIONS.items()
    }
    host, host_sources = build(HostIdentity, layers["host"])
    service, service_sources = build(Service, layers["serve"])
    _check_control(service, service_sources, mistakes)
    _check_reach(service, service_sources, mistakes)
    mistakes.check()
    if not host.cluster_uuid:
        host = attrs.evolve(host, cluster_uuid=derived_uuid("h", host.serial))
        host_sources["cluster_uuid"] = "derived from the host's serial number"

    guest_layers = {"": layers["guest"]} | {name: each.identity for name, each in merged.guests.items()}
    strangers = tuple(name for name in found.by_name if name not in configured) if paths else ()

    own = {name for layer in over for section, name in layer if section == "guest"}
    if own & {"uuid", "serial"} and (len(found.by_name) > 1 or folders):
        names = list(found.by_name)
        whom = f"{counted(len(names), 'guest')} ({several(names)})" if names else ""
        appearing = f"every guest that appears in {', '.join(map(str, folders))}" if folders else ""
        raise ConfigError(
            f"the guest's {' and '.join(sorted(own & {'uuid', 'serial'}))} is given for "
            f"{' and '.join(filter(None, (whom, appearing)))}: "
            f'give each its own in a --config file, as [guests.{values.key(next(iter(names), "nas"))}] serial = "…"'
        )
    # The environment and flags override the files, including a guest's own section.
    for name, layer in guest_layers.items():
        guest_layers[name] = layer | {
            name: value for each in over for (section, name), value in each.items() if section == "guest"
        }
    guests = tuple(
        _complete(guest_config(sock, guest_layers), found.sources[sock.name], merged.guests.get(sock.name))
        for sock in found.by_name.values()
    )
    made = Config(
        host,
        guests,
        service,
        tuple(folders),
        host_sources,
        service_sources,
        tuple(source for _, source in watched),
        guest_layers,
        strangers,
        tuple(_conflicts(common, merged)),
        may_be_empty=under is not None,
    )
    _check_together(made)
    return made


def check(config: Config) -> None:
    """Check that there are guests to serve, and that their settings fit together.

    Raises:
        ConfigError: there is none, or they don't.
    """
    if not config.guests and not config.watch and not config.may_be_empty:
        raise ConfigError("no guest to serve: add [guests.NAME] to the --config file, or give --sock or --watch")
    _check_together(config)


def _check_together(config: Config) -> None:
    mistakes = Mistakes()
    service, sources = config.service, config.service_sources
    if service.record and "{guest}" not in service.record and len(config.guests) + bool(config.watch) > 1:
        mistakes.add(
            f"{sources['record']}: {service.record!r} is one file, but each guest needs its own recording; "
            "put {guest} into its name"
        )
    if service.qemu_host_api and (len(config.guests) != 1 or config.watch):
        mistakes.add(
            f"{sources['qemu_host_api']}: qemu-host's API is for one guest, but there are "
            f"{'watched directories' if config.watch else len(config.guests)}: serve that guest with its own process"
        )
    needed = {"tcp:": ("control_token",), TLS: ("control_ca", "control_cert", "control_key")}
    for scheme, names in needed.items():
        for flag in (sources.get(name, "") for name in names if not service.control.startswith(scheme)):
            if flag.startswith("--"):
                mistakes.add(f"{flag} has no effect without --control {scheme}HOST:PORT")
    mistakes.check()


def _check_control(service: Service, sources: Mapping[str, str], mistakes: Mistakes) -> None:
    source = sources["control"]
    if service.control.startswith("tcp:") and not service.control_token:
        mistakes.add(
            f"{source} is {service.control}: any client that reaches it could stop guests, so TCP "
            f"needs a token: {ENVIRONMENT_PREFIX}CONTROL_TOKEN=$(openssl rand -hex 16)"
        )
    if service.control.startswith(TLS) and not (service.control_ca and service.control_cert and service.control_key):
        mistakes.add(
            f"{source} is {service.control}: TLS needs three files: --control-ca, --control-cert and "
            "--control-key, or these under [serve], as control_key and so on"
        )


def _check_reach(service: Service, sources: Mapping[str, str], mistakes: Mistakes) -> None:
    """Check that nothing that can stop guests is reachable from other machines without encryption.

    The program qemu-host has no such check: existing containers need its API as it is.
    """
    addresses = {
        "control": control_address(service.control) if service.control else None,
        "web": web_address(service.web) if service.web else None,
        "qemu_host_api": parse_api(service.qemu_host_api) if service.qemu_host_api else None,
    }
    for name, address in addresses.items():
        if type(address) is ListenTcp and not is_of_this_machine(address.host):
            mistakes.add(
                f"{sources[name]} is {getattr(service, name)}: other machines could stop guests through it "
                f"without encryption; {_SAFE[name].format(port=address.port)}"
            )


_SAFE: Final = {
    "control": "use tls:HOST:{port} with certificates, tcp:127.0.0.1:{port}, or from other machines --control ssh://HOST",
    "web": "use 127.0.0.1:{port}, and from another machine: ssh -L {port}:127.0.0.1:{port} HOST",
    "qemu_host_api": "use 127.0.0.1:{port} or unix:/PATH",
}
"""What to do instead, by setting."""


def _conflicts(common: Mapping[str, Mapping[str, Value]], merged: Merged) -> Iterator[str]:
    """Describe the serial numbers and UUIDs that this host's files have differently from all hosts' settings."""
    for name, layer in common.items():
        for key in ("serial", "uuid"):
            of_all, own = layer.get(key), merged.guests[name].identity.get(key)
            if of_all and own and of_all.value != own.value:
                yield f"{own.source} is {own.value}, but {of_all.source} is {of_all.value}: this host uses its own; remove one"


def _watched(value: Value | None, flags: Iterable[str | Path], mistakes: Mistakes) -> Iterator[tuple[Path, str]]:
    """Yield the watched directories of the files, then those of ``--watch``, each with its source."""
    given: list[tuple[object, str, str]] = []
    if value:
        example = 'watch = ["/run/guests"]'
        if isinstance(value.value, list):
            given += ((each, value.source, example) for each in value.value)
        else:
            mistakes.add(
                f"{value.source} is {quoted(value.value)}: expected a list of directories; for example: {example}"
            )
    given += ((str(each), "--watch", "/run/guests") for each in flags)
    for raw, source, example in given:
        with mistakes:
            yield Path(parsed(values.path, raw, source, example)).absolute(), source


def _default_sock(guest: Listed, environment: Mapping[str, str]) -> Sock:
    """Return the address of a listed guest without `sock`: in the runtime directory, its UUID or name."""
    own = guest.identity.get("uuid")
    try:
        path = runtime_directory(environment) / (str(own.value) if own else guest.name)
        check_path(path)
    except ValueError as error:
        raise ConfigError(f'{guest.where}: {error}; for example: sock = "/run/vhostcomm/{guest.name}"') from None
    return Sock(guest.name, Listen(path))


def _complete(guest: GuestConfig, sock_source: str, listed: Listed | None) -> GuestConfig:
    """Add what isn't a guest's identity: the source of its address, its QMP socket, its machine."""
    sources = {**guest.sources, "sock": sock_source}
    if listed is None:
        return attrs.evolve(guest, sources=sources)
    if listed.qmp:
        guest, sources["qmp"] = attrs.evolve(guest, qmp=str(listed.qmp.value)), listed.qmp.source
    if listed.machine:
        machine, machine_sources = build(MachineSettings, listed.machine)
        guest = attrs.evolve(guest, machine=machine, machine_sources=machine_sources)
    return attrs.evolve(guest, sources=sources)


class _Socks:
    """The guests' sockets, each with a unique name and address."""

    def __init__(self) -> None:
        self.by_name: dict[str, Sock] = {}
        self.sources: dict[str, str] = {}
        self._by_place: dict[str, str] = {}

    def add(self, sock: Sock, where: str, source: str = "default") -> None:
        """Add a guest's socket.

        Args:
            sock: the guest's name and address.
            where: its place, for errors.
            source: of its address.

        Raises:
            ConfigError: another guest has its name or address.
        """
        if sock.name in self.by_name:
            raise ConfigError(
                f"{where}: another guest is named {sock.name!r}; give this one a different name: NAME=SOCK"
            )
        if other := self._by_place.get(str(sock.address)):
            raise ConfigError(f"{where}: guest {other!r} already has the socket {sock.address}")
        self._put(sock, source)

    def _put(self, sock: Sock, source: str) -> None:
        self.sources[sock.name] = source
        self.by_name[sock.name] = sock
        self._by_place[str(sock.address)] = sock.name

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
        self._put(attrs.evolve(other, address=sock.address) if other else sock, "systemd")
