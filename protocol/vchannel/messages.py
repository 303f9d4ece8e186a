"""What the data of a frame means: text, integers, JSON, and the payloads whose shape is known.

Every payload has `to_data`, the bytes to put into a frame, and `from_data`, which raises
`PayloadError` where it can't read them. The sources are in ``protocol/README.md``.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from typing import Any, Final, Self, TypeGuard, TypeVar, cast

from attrs import frozen

from vchannel.commands import Kind
from vchannel.errors import MisuseError, PayloadError, shorten
from vchannel.frame import DATA_SIZE

TEXT_SIZE: Final = DATA_SIZE - 1
"""The most bytes of text a frame carries: its closing NUL needs one."""

NEVER: Final = (1 << 63) - 1
"""The update deadline that never comes, as the deployed tools send it: the largest signed 64-bit number."""


MAX_DEPTH: Final = 64
"""The deepest nesting of a guest's JSON: known payloads need six levels. Python's own limit differs between its versions."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def encode_text(text: str) -> bytes:
    """Text as data: UTF-8 and the closing NUL that the frame's length counts.

    Raises:
        MisuseError: longer than 4031 bytes, with a NUL inside, or no text that UTF-8 can write.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise MisuseError(f"text that isn't Unicode ({shorten(text)}): {error.reason}") from None
    if len(data) > TEXT_SIZE:
        raise MisuseError(f"text of {len(data)} bytes: a frame carries at most {TEXT_SIZE}, and they aren't split")
    if b"\0" in data:
        raise MisuseError(f"text with a NUL inside ({shorten(text)}): the NUL closes it; send such data as bytes")
    return data + b"\0"


def decode_text(data: bytes) -> str:
    """Data as text, up to its NUL; a missing NUL is forgiven, bytes that aren't UTF-8 become escapes."""
    return data.partition(b"\0")[0].decode(errors="backslashreplace")


def encode_integer(value: int) -> bytes:
    """An integer as data: its decimal text.

    Raises:
        MisuseError: not an integer of 64 bits with its sign.
    """
    if type(value) is not int or not -NEVER - 1 <= value <= NEVER:
        raise MisuseError(f"{shorten(value)} is no signed 64-bit integer")
    return encode_text(str(value))


def decode_integer(data: bytes) -> int:
    """Data as an integer.

    Raises:
        PayloadError: it isn't decimal text of a signed 64-bit number.
    """
    text = decode_text(data).strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(NEVER))):
        raise PayloadError("data", text, "not a decimal number")
    value = int(text)
    if not -NEVER - 1 <= value <= NEVER:
        raise PayloadError("data", text, "more than 64 bits")
    return value


def encode_json(value: object) -> bytes:
    """A value as JSON data, without spaces as every known payload has it.

    Raises:
        MisuseError: JSON can't write it, or it is too long.
    """
    try:
        return encode_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise MisuseError(f"JSON can't write {shorten(value)}: {error}") from None
    except ValueError as error:
        raise MisuseError(str(error)) from None


def decode_json(data: bytes) -> Any:
    """Data as JSON.

    Raises:
        PayloadError: it isn't JSON, is nested too deep to be any guest's honest answer, or holds what can't be
            written again: infinite numbers, halves of UTF-16 pairs.
    """
    text = decode_text(data)
    if _depth(text) > MAX_DEPTH:
        raise PayloadError("data", text, "JSON nested too deep")
    try:
        value = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        if "\\u" in text:  # only an escape can make half of a pair
            json.dumps(value, ensure_ascii=False).encode()
    except PayloadError:
        raise
    except UnicodeEncodeError:
        raise PayloadError("data", text, "JSON with half of a UTF-16 pair") from None
    except ValueError as error:
        raise PayloadError("data", text, f"not JSON ({error})") from None
    return value


def _depth(text: str) -> int:
    """How deep brackets are nested, outside strings."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_number(name: str) -> float:
    raise PayloadError("data", name, "not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


NO_NUL: Final = "text without its closing NUL"
"""What is wrong with data that may be right: whether a genuine guest counts its NUL is unknown."""


def data_problem(kind: Kind, data: bytes) -> PayloadError | None:
    """What is wrong with data that should be of a kind; None where nothing is, or nothing is known.

    No data is never wrong: it is the answer of someone who doesn't know. Nor is data where none is known to belong.
    """
    if not data or kind in (Kind.UNKNOWN, Kind.EMPTY):
        return None
    text = data[:-1]
    if data[-1]:
        return PayloadError("data", data[-16:], NO_NUL)
    if b"\0" in text:
        return PayloadError("data", data, "text with a NUL inside")
    try:
        text.decode()
        if kind is Kind.INTEGER:
            decode_integer(data)
        elif kind is Kind.JSON:
            decode_json(data)
    except UnicodeDecodeError as error:
        return PayloadError("data", data[error.start : error.start + 16], f"not UTF-8 at byte {error.start}")
    except PayloadError as error:
        return error
    return None


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
    """Answer to `HostCommand.HOST_VERSION`: the host's DSM build."""

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
    """Answer to `HostCommand.GUEST_CPU`. `name` has three comma-separated parts."""

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
    """Answer to `HostCommand.VMM_VERSION`. The unit of `timestamp` is not settled: tools send both s and ms."""

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
    """Answer to `HostCommand.NETWORK_RESULT`; the default is what deployed tools send."""

    detail: tuple[NetworkDetail, ...] = (NetworkDetail(),)

    def to_data(self) -> bytes:
        return encode_json({"detail": [{"success": line.success, "type": line.type} for line in self.detail]})

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        lines: list[Any] = _member(decode_json(data), "data", "detail", list)
        return cls(
            tuple(
                NetworkDetail(
                    _member(line, f"detail[{place}]", "type", str), _member(line, f"detail[{place}]", "success", bool)
                )
                for place, line in enumerate(lines)
            )
        )


@frozen
class Interface:
    """A network interface as the guest tells it; `ip` may be missing or IPv6."""

    name: str
    ip: str | None = None


@frozen
class GuestInformation:
    """A guest's answer to `GuestCommand.GET_INFORMATION`.

    Only two places of it are evidenced, ``.data.dsm_setting.data.http_port`` (a number or a string,
    missing early) and ``.data.ip.data[]`` with `name` and sometimes `ip`. They are read tolerantly:
    what is missing or odd is None or left out. `document` is everything the guest sent.
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
        """The address of the interface of that name, if the guest has told one."""
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
"""Network interfaces read of one answer: reading an address costs 10 µs, and a hostile answer has room for 160."""


def _interfaces(value: object) -> list[Interface]:
    lines = value if isinstance(value, list) else []
    found = []
    for line in lines[:INTERFACES_READ]:
        if isinstance(line, dict) and isinstance(name := line.get("name"), str):
            ip = line.get("ip")
            found.append(Interface(name, ip if _is_address(ip) else None))
    return found


def _is_address(value: object) -> TypeGuard[str]:
    """Whether it is an IP address. `ipaddress` accepts any text behind a "%", where an interface's name belongs."""
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value)) and _SCOPE.fullmatch(value) is not None
    except ValueError:
        return False


_SCOPE: Final = re.compile(r"[^%]*(?:%[A-Za-z0-9_.-]{1,15})?")
"""An address with the interface that it belongs to, or without one. Linux limits an interface's name to 15 bytes."""
