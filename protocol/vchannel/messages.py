"""Payloads with a known structure.

Every payload has `to_data`, which returns the bytes for a frame, and `from_data`, which raises `PayloadError` for
invalid bytes. ``protocol/README.md`` has the sources.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, Self, TypeGuard, TypeVar, cast

from attrs import frozen

from vchannel.data import decode_json, encode_json
from vchannel.errors import PayloadError

T = TypeVar("T")


def _dict(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PayloadError(path, value, "not a JSON object")
    return cast("dict[str, Any]", value)


def _member(value: object, path: str, name: str, kind: type[T]) -> T:
    found = _dict(value, path).get(name)
    if type(found) is not kind:
        raise PayloadError(f"{path}.{name}".removeprefix("data."), found, f"not a JSON {_JSON_NAMES[kind]}")
    return found


_JSON_NAMES: Final[dict[type, str]] = {int: "integer", str: "string", bool: "true or false", list: "array"}


@frozen
class HostVersion:
    """The answer to `HostCommand.HOST_VERSION`: the host's DSM build."""

    build_number: int = 69057
    small_fix_number: int = 0

    def to_data(self) -> bytes:
        return encode_json({"buildnumber": self.build_number, "smallfixnumber": self.small_fix_number})

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        value = decode_json(data)
        return cls(_member(value, "data", "buildnumber", int), _member(value, "data", "smallfixnumber", int))


@frozen
class CpuInfo:
    """The answer to `HostCommand.GUEST_CPU`. `name` has three comma-separated parts."""

    name: str = "QEMU, Virtual CPU, X86_64"
    vcpus: int = 1

    def to_data(self) -> bytes:
        return encode_json({"cpuinfo": f"{self.name}, {self.vcpus}", "vcpu_num": self.vcpus})

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        value = decode_json(data)
        vcpus = _member(value, "data", "vcpu_num", int)
        return cls(_member(value, "data", "cpuinfo", str).removesuffix(f", {vcpus}"), vcpus)


@frozen
class VmmVersion:
    """The answer to `HostCommand.VMM_VERSION`. The unit of `timestamp` is unclear: tools send both s and ms."""

    version: str = "2.6.5-12202"
    timestamp: int = 1650802981

    def to_data(self) -> bytes:
        return encode_json(
            {
                "id": "Virtualization",
                "name": "Virtual Machine Manager",
                "timestamp": self.timestamp,
                "version": self.version,
            }
        )

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        value = decode_json(data)
        return cls(_member(value, "data", "version", str), _member(value, "data", "timestamp", int))


@frozen
class NetworkDetail:
    """One line of a `NetworkResult`."""

    type: str = "set_net"
    success: bool = False


@frozen
class NetworkResult:
    """The answer to `HostCommand.NETWORK_RESULT`; the default is what deployed tools send."""

    detail: tuple[NetworkDetail, ...] = (NetworkDetail(),)

    def to_data(self) -> bytes:
        return encode_json({"detail": [{"success": line.success, "type": line.type} for line in self.detail]})

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        lines: list[Any] = _member(decode_json(data), "data", "detail", list)
        details = []
        for place, line in enumerate(lines):
            path = f"detail[{place}]"
            details.append(NetworkDetail(_member(line, path, "type", str), _member(line, path, "success", bool)))
        return cls(tuple(details))


@frozen
class Interface:
    """A network interface as the guest reports it; `ip` may be missing or IPv6."""

    name: str
    ip: str | None = None


@frozen
class GuestInformation:
    """A guest's answer to `GuestCommand.GET_INFORMATION`.

    Only two parts have evidence: ``.data.dsm_setting.data.http_port`` (a number or a string, missing early) and
    ``.data.ip.data[]`` with `name` and sometimes `ip`. The parser is tolerant: missing or odd values are None or
    omitted. `document` is everything that the guest sent.
    """

    http_port: int | None
    interfaces: tuple[Interface, ...]
    document: dict[str, Any]

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        """Read an answer.

        Raises:
            PayloadError: it is not a JSON object.
        """
        document = _dict(decode_json(data), "data")
        return cls(
            _port(_walk(document, "data", "dsm_setting", "data", "http_port")),
            tuple(_interfaces(_walk(document, "data", "ip", "data"))),
            document,
        )

    def address(self, name: str = "eth0") -> str | None:
        """Return the address of the interface with this name, if the guest has reported one."""
        return next((each.ip for each in self.interfaces if each.name == name and each.ip), None)


def _walk(value: object, *path: str) -> object:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _port(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len("65535"):
        value = int(value)
    if type(value) is int and 0 < value <= 0xFFFF:
        return value
    return None


INTERFACES_READ: Final = 32
"""Maximum network interfaces to read of an answer: an address costs 10 µs, and a hostile answer has space for 160."""


def _interfaces(value: object) -> list[Interface]:
    lines = value if isinstance(value, list) else []
    found = []
    for line in lines[:INTERFACES_READ]:
        if isinstance(line, dict) and isinstance(name := line.get("name"), str):
            ip = line.get("ip")
            found.append(Interface(name, ip if is_address(ip) else None))
    return found


def is_address(value: object) -> TypeGuard[str]:
    """Return whether it is an IP address. `ipaddress` accepts any text after "%", where an interface's name belongs."""
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value)) and _SCOPE.fullmatch(value) is not None
    except ValueError:
        return False


_SCOPE: Final = re.compile(r"[^%]*(?:%[A-Za-z0-9_.-]{1,15})?")
"""An address with or without an interface. Linux limits an interface's name to 15 bytes."""
