"""The identities of host and guest, which the guest receives. Every default is a placeholder."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Final

import attrs
from attrs import frozen

from vchannel import NEVER, CpuInfo, HostVersion, VmmVersion
from vhostcomm.config import values

ZERO_SERIAL: Final = "0" * values.SERIAL_SIZE


def setting(
    default: Any,
    kind: values.Kind,
    help: str,  # noqa: A002 - the usual word on command lines
    example: str,
    flag: str = "",
    metavar: str = "",
) -> Any:
    """Make an attrs field that an operator can set: in the file by its name, by its flag, by VHOSTCOMM_FLAG."""
    metadata = {"kind": kind, "help": help, "example": example, "flag": flag, "word": metavar or kind.word}
    return attrs.field(default=default, metadata=metadata)


def flag_of(setting: attrs.Attribute[Any]) -> str:
    """Return the name of a setting's flag, without dashes in front: its own, else that of the attribute."""
    return str(setting.metadata["flag"]) or setting.name.replace("_", "-")


def default_text(setting: attrs.Attribute[Any]) -> str:
    """Format a setting's default for an operator; "" if there is none."""
    return str(setting.metadata["kind"].show(setting.default))


def example_toml(setting: attrs.Attribute[Any]) -> str:
    """Format a setting's example for the file."""
    kind, example = setting.metadata["kind"], str(setting.metadata["example"])
    return example if example.startswith("[") else str(kind.toml(kind.parse(example)))


@frozen
class HostIdentity:
    """The host's identity. An empty `cluster_uuid` is derived from the serial."""

    serial: str = setting(ZERO_SERIAL, values.SERIAL, "The host's serial number.", "1234ABC567890", "host-serial")
    mac: str = setting("00:00:00:00:00:00", values.MAC, "The host's MAC address.", "02:11:32:00:00:01", "host-mac")
    model: str = setting("Virtualhost", values.TEXT, "The host's model.", "Virtualhost", "host-model")
    build: int = setting(
        HostVersion().build_number, values.number(0, 2**31 - 1), "The host's DSM build number.", "69057", "host-build"
    )
    fix: int = setting(
        HostVersion().small_fix_number, values.number(0, 2**31 - 1), "The host's DSM small fix number.", "0", "host-fix"
    )
    vmm_version: str = setting(
        VmmVersion().version, values.TEXT, "The Virtual Machine Manager's version.", "2.6.5-12202"
    )
    vmm_timestamp: int = setting(
        VmmVersion().timestamp,
        values.number(0, NEVER),
        "The Virtual Machine Manager's build time, in seconds or milliseconds; sent unchanged.",
        "1650802981",
    )
    cluster_uuid: str = setting(
        "",
        values.UUID,
        "The cluster's UUID; by default derived from the host's serial number.",
        "8b532c79-f207-3510-5067-79268f097d46",
    )


@frozen
class GuestIdentity:
    """The identity of one guest. An empty `uuid` is derived from the serial."""

    uuid: str = setting(
        "",
        values.UUID,
        "The guest's UUID; by default the socket's name if that is a UUID, else derived from the serial number.",
        "d990d22a-e971-ef5f-a7b3-e6374e496b34",
        "guest-uuid",
    )
    serial: str = setting(ZERO_SERIAL, values.SERIAL, "The guest's serial number.", "1234ABC567890", "guest-serial")
    cpu: str = setting(
        CpuInfo().name, values.TEXT, "The guest's CPU, usually three parts with commas.", "QEMU, Virtual CPU, X86_64"
    )
    vcpus: int = setting(1, values.number(1, 4096), "The guest's number of virtual CPUs.", "2")
    update_deadline: int = setting(
        NEVER,
        values.DEADLINE,
        "End of the guest's right to updates: never, an ISO date, or seconds since 1970.",
        "never",
    )


def derived_uuid(prefix: str, serial: str) -> str:
    """Derive a UUID from a serial number as deployed tools do: the MD5 of a letter and the serial.

    Args:
        prefix: ``g`` for a guest, ``h`` for a host's cluster.
        serial: in any case; upper case is hashed.
    """
    digest = hashlib.md5(f"{prefix}{serial.upper()}".encode(), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest))
