"""Load the configuration: flags override the environment, which overrides a TOML file. Pure, except for reading it.

Unknown keys and invalid values are rejected with their place, the reason, and a valid example.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs

from vhostcomm.config import values
from vhostcomm.config.address import (
    Activated,
    Address,
    Listen,
    Sock,
    check_path,
    example_socket,
    own_example,
    parse_sock,
    runtime_directory,
)
from vhostcomm.config.identity import HostIdentity, derived_uuid, example_toml
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
from vhostcomm.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "VHOSTCOMM_"

Flags = Mapping[str, object]
"""Values of flags by the flag's name without its leading dashes. Flags that weren't given are missing."""


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
    document = _read(file) if file else {}
    folders = [_folder(each, "--watch") for each in watch]
    label = str(file)
    over = [_from_environment(environment), _from_flags(flags or {})]
    layers: dict[str, dict[str, Value]] = {}
    for section, model in SECTIONS.items():
        in_file = _section(document.pop(section, {}), section, label, extra=("watch",) if section == "serve" else ())
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
    listed = _table(document.pop("guests", {}), "guests", label)
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
        sock = _parse(parse_sock, text, "--sock", example, environment)
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


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_bytes(file).decode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}{_remedy(file, error)}") from None
    except RecursionError:
        raise ConfigError(f"{file}: TOML with lists or tables that are nested too deeply") from None
    except ValueError as error:  # TOML's errors, encoding errors, and numbers with thousands of digits
        raise ConfigError(f"{file}: not TOML: {str(error).partition(';')[0]}") from None


def _bytes(file: Path) -> bytes:
    """Read a regular file. Never opens anything that could block or has no end."""
    _check_regular(file, file.stat())
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as opened:
        _check_regular(file, os.fstat(fd))  # the path may now name another file
        return opened.read(SIZE_LIMIT)


def _check_regular(file: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise ConfigError(f"{file}: {kind}, but the configuration must be a regular file; give the path of one")
    if found.st_size > SIZE_LIMIT:
        raise ConfigError(
            f"{file}: {found.st_size} bytes, but a configuration has at most {SIZE_LIMIT}; is it the right file?"
        )


SIZE_LIMIT: Final = 16 << 20
"""Maximum bytes of a configuration file: 10,000 guests with every setting need less."""

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def _remedy(file: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"; create one: vhostcomm config init {file}"
    if isinstance(error, PermissionError):
        return f"; uid {os.geteuid()} must be able to read it: chmod a+r {file}, and keep secrets in the environment"
    return ""


def _table(value: object, where: str, label: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{label}: {where} is {_shown(value)}; it is a section, as in\n\n    [{where}]")
    return cast("dict[str, Any]", value)


def _section(
    value: object, section: str, label: str, extra: Iterable[str] = (), *, where: str = ""
) -> dict[str, Value]:
    where = where or section
    table = _table(value, where, label)
    model = settings(SECTIONS.get(section, MachineSettings))
    made = {}
    for key, raw in table.items():
        if key in extra:
            made[key] = Value(raw, f"{label}: {where}.{key}")
        elif key in model:
            made[key] = Value(
                _value(model[key], raw, f"{label}: {where}.{key}", quoted=True), f"{label}: {where}.{key}"
            )
        else:
            raise ConfigError(f"{label}: {where}.{key}: unknown; {_known(key, (*model, *extra))}")
    return made


def _value(attribute: attrs.Attribute[Any], raw: object, source: str, *, quoted: bool = False) -> object:
    example = f"{attribute.name} = {example_toml(attribute)}" if quoted else attribute.metadata["example"]
    return _parse(attribute.metadata["kind"].parse, raw, source, own_example(example))


def _parse(parse: Any, raw: object, source: str, example: str, *more: object) -> Any:
    try:
        return parse(raw, *more)
    except ValueError as error:
        shown = "(hidden)" if parse is values.token else _shown(raw)
        raise ConfigError(f"{source} is {shown}: {error}; for example: {example}") from None


def _shown(raw: object) -> str:
    try:
        text = str(raw)
        return ascii(raw) if len(text) < 80 else ascii(text[:80]) + "…"
    except (ValueError, RecursionError):  # a number with thousands of digits, deeply nested lists
        return "too long to be shown"


def variable(setting: attrs.Attribute[Any]) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + str(setting.metadata["flag"]).upper().replace("-", "_")


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], Value]:
    known = {
        variable(each): (section, each) for section, model in SECTIONS.items() for each in settings(model).values()
    }
    made = {}
    for name, raw in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name.startswith(FOREIGN_VARIABLES):
            continue
        if name not in known:
            raise ConfigError(f"the environment's {name}: unknown; {_known(name, sorted(known))}")
        section, each = known[name]
        made[section, each.name] = Value(_value(each, raw, f"the environment's {name}"), f"environment {name}")
    return made


FOREIGN_VARIABLES: Final = tuple(
    ENVIRONMENT_PREFIX + each for each in ("HOOK_", "KERNEL", "MODULES", "CACHE", "QEMU", "QEMU_DATA")
)
"""Other variables with this prefix: those that hooks receive, and those of the tests' guest."""


def _from_flags(flags: Flags) -> dict[tuple[str, str], Value]:
    made = {}
    for section, model in SECTIONS.items():
        for each in settings(model).values():
            flag = each.metadata["flag"]
            if flags.get(flag) is not None:
                made[section, each.name] = Value(_value(each, flags[flag], f"--{flag}"), f"--{flag}")
    return made


def _folders(value: Value) -> list[Path]:
    raw = value.value
    if not isinstance(raw, list):
        raise ConfigError(
            f'{value.source} is {_shown(raw)}: it is a list of folders; for example: watch = ["/run/guests"]'
        )
    return [_folder(each, value.source, 'watch = ["/run/guests"]') for each in raw]


def _folder(raw: object, source: str, example: str = "/run/guests") -> Path:
    return Path(_parse(values.path, raw if not isinstance(raw, Path) else str(raw), source, example)).absolute()


def _is_tcp(raw: object) -> bool:
    return isinstance(raw, str) and "tcp:" in raw


def _listed_guest(
    name: str, table: object, label: str, environment: Mapping[str, str]
) -> tuple[Sock, dict[str, Value]]:
    where = f"guests.{name}"
    _parse(values.name, name, f"{label}: the name of [{where}]", "[guests.nas]")
    layer = _section(table, "guest", label, ("sock", "qmp", "machine"), where=where)
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
    sock = _parse(parse_sock, given.value, given.source, f'sock = "{example}"', environment)
    return attrs.evolve(sock, name=name), layer


def _monitor(table: object, name: str, label: str) -> Value | None:
    """Parse the QMP socket of a listed guest's QEMU."""
    if not isinstance(table, dict) or "qmp" not in table:
        return None
    source = f"{label}: guests.{name}.qmp"
    return Value(_parse(_socket_path, table["qmp"], source, f'qmp = "/run/qemu/{name}.qmp"'), source)


def _machine(table: object, name: str, label: str) -> dict[str, Value]:
    """Parse the machine of a listed guest."""
    if not isinstance(table, dict) or "machine" not in table:
        return {}
    return _section(table["machine"], "machine", label, where=f"guests.{name}.machine")


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


def _known(given: str, names: Sequence[str]) -> str:
    """Suggest the nearest name, and list all names."""
    near = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known are {', '.join(names)}"
