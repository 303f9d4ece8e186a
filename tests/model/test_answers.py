"""Each answer has the value of its setting."""

from __future__ import annotations

import json

from vchannel import NEVER, HostCommand
from vhostcomm.config.identity import GuestIdentity, HostIdentity
from vhostcomm.guest.answers import answers

HOST = HostIdentity(
    "HOSTSERIAL001", "02:11:32:00:00:01", "box", 7, 3, "2.7", 99, "8b532c79-f207-3510-5067-79268f097d46"
)
GUEST = GuestIdentity("d990d22a-e971-ef5f-a7b3-e6374e496b34", "GUESTSERIAL02", "A, B, C", 5, NEVER)


def test_each_answer_has_its_own_setting() -> None:
    texts = {command: data.removesuffix(b"\0").decode() for command, data in answers(HOST, GUEST).items()}
    assert {command: json.loads(text) for command, text in texts.items() if text.startswith("{")} == {
        HostCommand.HOST_VERSION: {"buildnumber": 7, "smallfixnumber": 3},
        HostCommand.GUEST_CPU: {"cpuinfo": "A, B, C, 5", "vcpu_num": 5},
        HostCommand.VMM_VERSION: {
            "id": "Virtualization", "name": "Virtual Machine Manager", "timestamp": 99, "version": "2.7",
        },
        HostCommand.NETWORK_RESULT: {"detail": [{"success": False, "type": "set_net"}]},
    }  # fmt: skip
    assert {command: text for command, text in texts.items() if not text.startswith("{")} == {
        HostCommand.GUEST_SERIAL: GUEST.serial,
        HostCommand.GUEST_UUID: GUEST.uuid,
        HostCommand.CLUSTER_UUID: HOST.cluster_uuid,
        HostCommand.HOST_SERIAL: HOST.serial,
        HostCommand.HOST_MAC: HOST.mac,
        HostCommand.HOST_MODEL: HOST.model,
        HostCommand.UPDATE_DEADLINE: str(NEVER),
    }
