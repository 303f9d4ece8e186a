"""The configuration's models: the guests and the daemon's settings. Pure.

Every value has its source, because operators ask most often which serial number was served, and why.
`vhostcomm.config.load` reads the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from attrs import field, frozen

from vhostcomm.config import values
from vhostcomm.config.address import Address, Sock
from vhostcomm.config.http_address import API, CONTROL, WEB
from vhostcomm.config.identity import GuestIdentity, HostIdentity, derived_uuid, setting
from vhostcomm.config.machine import MachineSettings

_BIG: Final = 2**31 - 1
_NAMES_SHOWN: Final = 5

T = TypeVar("T", bound=attrs.AttrsInstance)


@frozen
class Service:
    """How the daemon serves."""

    socket_mode: int = setting(0o600, values.MODE, "Mode of the sockets, in octal.", "0660")
    socket_group: str = setting("", values.GROUP, "Group of the sockets; the daemon's own by default.", "kvm")
    frame_rate: int = setting(
        2000,
        values.number(0, _BIG),
        "Frames a second that one guest may send before it is read more slowly; 0 for no limit.",
        "2000",
    )
    send_timeout: float = setting(
        10.0, values.SECONDS, "Seconds a guest may leave an answer unread before answers are dropped.", "10"
    )
    partial_timeout: float = setting(
        1.0, values.SECONDS, "Seconds of silence after which half a frame is dropped.", "1"
    )
    drain_timeout: float = setting(2.0, values.SECONDS, "Seconds at a stop to answer pending questions of guests.", "2")
    record: str = setting(
        "",
        values.PATH,
        "Record every frame into this file; {guest} stands for the guest's name, needed with several guests.",
        "/var/log/vhostcomm/{guest}.jsonl",
        metavar="FILE",
    )
    record_limit: int = setting(
        64 << 20, values.SIZE, "Bytes after which a recording ends, with an optional k, M, G or T.", "64M"
    )
    qemu_host_api: str = setting(
        "",
        API,
        "Also serve the HTTP API of qemu-host for one guest, on HOST:PORT (on the loopback) or the path of a unix socket. It "
        "has no password: any client that reaches it can power off the guest.",
        "/run/vhostcomm/qemu-host.sock",
    )
    log_level: str = setting(
        "info",
        values.choice("debug", "info", "warning", "error"),
        "Least severe messages to log; debug logs every frame.",
        "info",
    )
    log_format: str = setting(
        "auto",
        values.choice("auto", "console", "json"),
        "Format of the log: console for people, json for machines; auto is console on a terminal and in the journal.",
        "auto",
    )
    control: str = setting(
        "",
        CONTROL,
        "The daemon's address for verbs such as `vhostcomm guests`: a unix socket's path, tcp:HOST:PORT (on the loopback; needs "
        "a token), tls:HOST:PORT (needs --control-ca, --control-cert and --control-key), or none. By default control.sock "
        "in the runtime directory; vhostcomm run and a second vhostcomm serve use a socket in its directory control.",
        "/run/vhostcomm/control.sock",
    )
    control_token: str = setting(
        "",
        values.TOKEN,
        "Token for clients over TCP. Set it in the environment: other users can see a flag.",
        "a-long-random-secret",
    )
    control_ca: str = setting(
        "",
        values.PATH,
        "The CA of a control surface with TLS: clients need a certificate of it.",
        "/etc/vhostcomm/tls/ca.crt",
        metavar="FILE",
    )
    control_cert: str = setting(
        "",
        values.PATH,
        "This host's certificate, for a control surface with TLS.",
        "/etc/vhostcomm/tls/host.crt",
        metavar="FILE",
    )
    control_key: str = setting(
        "",
        values.PATH,
        "The key of that certificate. Other users must not be able to read it.",
        "/etc/vhostcomm/tls/host.key",
        metavar="FILE",
    )
    web: str = setting(
        "",
        WEB,
        "Also serve a web page at HOST:PORT. It opens with a link that has a one-time key, which `vhostcomm web` prints. "
        "There is no encryption, so HOST must be localhost or a loopback address.",
        "127.0.0.1:8470",
    )
    allow_dangerous: bool = setting(
        False,
        values.BOOLEAN,
        "Allow commands that can lose data, settings or a secret, for clients that allow them too.",
        "yes",
    )


@frozen
class Value:
    """A configured value and where it came from, in words."""

    value: object
    source: str


Sources = Mapping[str, str]


@frozen
class GuestConfig:
    """One guest: its name, the address of its channel, and its identity."""

    name: str
    address: Address
    identity: GuestIdentity
    qmp: str = ""
    """A QMP socket of its QEMU, for vhostcomm only; empty for none."""
    machine: MachineSettings = field(factory=MachineSettings, eq=False)
    """The machine that the launcher starts; the daemon ignores it."""
    sources: Sources = field(factory=dict, eq=False, repr=False)
    machine_sources: Sources = field(factory=dict, eq=False, repr=False)


@frozen
class Config:
    """The complete configuration. UUIDs are already derived."""

    host: HostIdentity
    guests: tuple[GuestConfig, ...]
    service: Service
    watch: tuple[Path, ...] = ()
    host_sources: Sources = field(factory=dict, eq=False, repr=False)
    service_sources: Sources = field(factory=dict, eq=False, repr=False)
    watch_sources: tuple[str, ...] = field(default=(), eq=False, repr=False)
    """The source of each watched directory."""
    guest_layers: Mapping[str, Mapping[str, Value]] = field(factory=dict, eq=False, repr=False)
    """Settings in the files by guest name, and "" for those of all guests: for guests that appear later."""
    strangers: tuple[str, ...] = field(default=(), eq=False)
    """Guests for which systemd passed a socket, but which are in no file."""
    conflicts: tuple[str, ...] = field(default=(), eq=False)
    """Descriptions of identities that this host has differently from the cluster."""
    may_be_empty: bool = field(default=False, eq=False)
    """Whether having no guest is valid, since the cluster may get some later."""
    tree: object = field(default=None, eq=False, repr=False)
    """The cluster's tree that it was made from; None without a cluster."""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Return descriptions of settings that are valid but probably mistakes.

        These are guests with the same serial number or UUID, guests that are not in the file, and guests that other hosts
        serve with another identity.
        """
        known = several([name for name in self.guest_layers if name])
        strange = tuple(
            f"systemd has passed a socket for {name!r}, but the file has no such guest"
            f"{f', only {known}' if known else ''}: it gets the values of [guest]; correct the socket unit's instance "
            f"(or FileDescriptorName=), or add [guests.{values.key(name)}] to the file"
            for name in self.strangers
        )
        return (
            strange
            + self.conflicts
            + tuple(
                f"the guests {several(names)} have the same {words} ({value}): "
                f'give each its own, as [guests.{values.key(names[-1])}] {key} = "…"'
                for key, words in (("serial", "serial number"), ("uuid", "UUID"))
                for value, names in _by(self.guests, key).items()
                if len(names) > 1
            )
        )

    def guest(self, sock: Sock) -> GuestConfig:
        """Return the configuration of an unlisted guest, such as one that appears in a watched directory."""
        return guest_config(sock, self.guest_layers)


def _by(guests: tuple[GuestConfig, ...], key: str) -> dict[str, list[str]]:
    """Group the guests' names by a value of their identities."""
    found: dict[str, list[str]] = {}
    for each in guests:
        found.setdefault(getattr(each.identity, key), []).append(each.name)
    return found


def several(names: list[str]) -> str:
    """Format names for a sentence; only the first few of many."""
    if len(names) > _NAMES_SHOWN:
        return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


SECTIONS: Final[dict[str, type[attrs.AttrsInstance]]] = {"host": HostIdentity, "guest": GuestIdentity, "serve": Service}
"""The file's sections with their models; guests have their own sections below ``guests``."""


settings: Final = attrs.fields_dict
"""Return a model's settings by name."""


def build(model: type[T], layer: Mapping[str, Value]) -> tuple[T, dict[str, str]]:
    """Make a model from the given values, and return the source of each of its values."""
    sources = {name: layer[name].source if name in layer else "default" for name in settings(model)}
    return model(**{name: layer[name].value for name in settings(model) if name in layer}), sources


def guest_config(sock: Sock, layers: Mapping[str, Mapping[str, Value]]) -> GuestConfig:
    """Make a guest's configuration from the settings of all guests (under "") and its own (under its name)."""
    layer = {**layers.get("", {}), **layers.get(sock.name, {})}
    source = "the socket's name" if sock.uuid else "derived from the guest's serial number"
    identity, sources = _identity(layer, sock.uuid, source)
    return GuestConfig(sock.name, sock.address, identity, sources=sources)


def _identity(layer: Mapping[str, Value], uuid: str, source: str) -> tuple[GuestIdentity, dict[str, str]]:
    """Make a guest's identity. Without a UUID, use the given one, else derive one, with `source` as its source."""
    identity, sources = build(GuestIdentity, layer)
    if not identity.uuid:
        identity = attrs.evolve(identity, uuid=uuid or derived_uuid("g", identity.serial))
        sources["uuid"] = source
    return identity, sources


def effective(config: Config, *, as_text: bool = False) -> dict[str, dict[str, dict[str, object]]]:
    """Every active value with its source, by section, for JSON; secrets are hidden. With `as_text`, for people."""

    def section(model: attrs.AttrsInstance, sources: Sources) -> dict[str, dict[str, object]]:
        return {
            key: {"value": _shown(each, getattr(model, key), as_text), "source": sources.get(key, "default")}
            for key, each in settings(type(model)).items()
        }

    sections = {"host": section(config.host, config.host_sources)}
    if config.watch or not config.guests:  # the identity of guests that aren't listed
        source = "the socket's name if that is one, else derived from the guest's serial number"
        sections["guest"] = section(*_identity(config.guest_layers.get("", {}), "", source))
    for each in config.guests:
        own: dict[str, dict[str, object]] = {
            "sock": {"value": str(each.address), "source": each.sources.get("sock", "")}
        }
        if each.qmp:
            own["qmp"] = {"value": each.qmp, "source": each.sources.get("qmp", "")}
        sections[f"guests.{each.name}"] = own | section(each.identity, each.sources)
        if each.machine_sources:
            sections[f"guests.{each.name}.machine"] = section(each.machine, each.machine_sources)
    return sections | {"serve": section(config.service, config.service_sources)}


def _shown(setting: attrs.Attribute[Any], value: Any, as_text: bool) -> object:
    kind = setting.metadata["kind"]
    if kind is values.TOKEN:
        return "(hidden)" if value else ""
    if as_text or kind is values.MODE:  # JSON has no octal numbers
        return str(kind.show(value))
    return list(value) if isinstance(value, tuple) else value
