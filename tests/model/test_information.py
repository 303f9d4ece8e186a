"""A guest's information about itself."""

from __future__ import annotations

import json

import pytest

from vchannel import GuestInformation
from vhostcomm.guest.evidence import Moment
from vhostcomm.guest.information import Information

TOLD = b'{"data":{"dsm_setting":{"data":{"http_port":5000}},"ip":{"data":[{"ip":"10.0.2.15","name":"eth0"}]}}}\0'


@pytest.mark.parametrize(("data", "port", "problem"), [(TOLD, 5000, False), (b"no json\0", None, True)])
def test_answer_is_parsed_once(data: bytes, port: int | None, problem: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, parsed = GuestInformation.from_data, []

    def counted(given: bytes) -> GuestInformation:
        parsed.append(given)
        return parse(given)

    monkeypatch.setattr(GuestInformation, "from_data", counted)
    information = Information(data, Moment(0.0, 0.0))
    for _ in range(2):
        assert information.http_port == port
        assert information.address == ("10.0.2.15" if port else None)
        assert bool(information.problem) == problem
    assert parsed == [data]


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        ([], None),
        ([{"name": "lo"}, {"name": "eth1", "ip": "10.0.0.1"}, {"name": "eth0", "ip": "10.0.0.2"}], "10.0.0.2"),
        ([{"name": "eth0"}, {"name": "eth2", "ip": "10.0.0.3"}, {"name": "eth1", "ip": "10.0.0.1"}], "10.0.0.3"),
    ],
)
def test_the_address_of_eth0_else_the_first(interfaces: list[dict[str, str]], address: str | None) -> None:
    data = json.dumps({"data": {"ip": {"data": interfaces}}}).encode()
    information = Information(data, Moment(1.0, 7.0))
    assert (information.address, information.http_port, information.problem) == (address, None, None)
    assert information.received.wall == 7.0
