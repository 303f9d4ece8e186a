"""The answers to a guest's questions: (identity, request) → data. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from vchannel import (
    Command,
    CpuInfo,
    HostCommand,
    HostVersion,
    NetworkResult,
    PreparedAnswer,
    VmmVersion,
    encode_integer,
    encode_text,
)
from vhostcomm.config.identity import GuestIdentity, HostIdentity

PREPARED_KEPT: Final = 128
"""Prepared answers to keep, 4 KiB each: those that all guests share, and those of guests that asked recently."""

EMPTY: Final = b""
"""The answer to an unknown question, if it needs one."""

prepare = lru_cache(maxsize=PREPARED_KEPT)(PreparedAnswer)
"""Prepares an answer; it is kept as long as it is used."""


def answers(host: HostIdentity, guest: GuestIdentity) -> dict[Command, bytes]:
    """Return the data of every answer that isn't empty. UUIDs must already be derived."""
    return {
        HostCommand.HOST_VERSION: HostVersion(host.build, host.fix).to_data(),
        HostCommand.GUEST_SERIAL: encode_text(guest.serial),
        HostCommand.GUEST_CPU: CpuInfo(guest.cpu, guest.vcpus).to_data(),
        HostCommand.VMM_VERSION: VmmVersion(host.vmm_version, host.vmm_timestamp).to_data(),
        HostCommand.NETWORK_RESULT: NetworkResult().to_data(),
        HostCommand.GUEST_UUID: encode_text(guest.uuid),
        HostCommand.CLUSTER_UUID: encode_text(host.cluster_uuid),
        HostCommand.HOST_SERIAL: encode_text(host.serial),
        HostCommand.HOST_MAC: encode_text(host.mac),
        HostCommand.HOST_MODEL: encode_text(host.model),
        HostCommand.UPDATE_DEADLINE: encode_integer(guest.update_deadline),
    }
