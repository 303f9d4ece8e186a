"""Rejected requests: each error has what, why and the remedy, and the daemon keeps serving."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.control.controlled import answering, controlled, post

IP, UPTIME, POWEROFF, REBOOT, INFO, FREEZE, THAW = 2, 5, 6, 8, 10, 14, 15


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/guests/nobody/call", {"command": 2}, 404, "no guest 'nobody'"),
        ("/guests/nobody/shutdown", {}, 404, "no guest"),
        ("/guests/nas/call", {}, 422, "command is None"),
        ("/guests/nas/call", {"command": "get_pi"}, 422, "command is 'get_pi'"),
        ("/guests/nas/call", {"command": -1}, 422, "command"),
        ("/guests/nas/call", {"command": True}, 422, "command"),
        ("/guests/nas/call", {"command": 1 << 40}, 422, "command"),
        ("/guests/nas/call", {"command": 2, "timeout": 0}, 422, "timeout is 0"),
        ("/guests/nas/call", {"command": 2, "timeout": "1"}, 422, "timeout"),
        ("/guests/nas/call", {"command": 2, "timeout": 1e9}, 422, "timeout"),
        ("/guests/nas/call", {"command": 2, "data": "x" * 4032}, 422, "4031"),
        ("/guests/nas/call", {"command": 2, "data": "a\0b"}, 422, "NUL"),
        ("/guests/nas/call", {"command": 2, "data": "\ud800"}, 422, "Unicode"),
        ("/guests/nas/call", {"command": 2, "data": 5}, 422, "data is 5"),
        ("/guests/nas/call", {"command": 2, "more": 5}, 422, "unknown: more"),
        ("/guests/nas/call", {"command": 2, "i_know_this_is_dangerous": 1}, 422, "i_know"),
        ("/guests/nas/call", {"command": "reset"}, 403, "reset"),
        ("/guests/nas/call", {"command": 13, "i_know_this_is_dangerous": True}, 403, "delete_vdisk"),
        ("/guests/nas/freeze", {"timeout": -1}, 422, "timeout"),
        ("/guests/nas/call", {"command": "1" * 5000}, 422, "command"),
        ("/guests/nas/call/", {"command": 2}, 404, "/guests/nas/call/"),
        ("/guests/nas/shutdown", {"wait": None}, 422, "wait"),
        ("/guests/nas/call", b"{", 400, "not JSON"),
        ("/guests/nas/call", b"\xff", 400, "not JSON"),
        ("/guests/nas/call", b"[" * 60000, 400, "not JSON"),
        ("/guests/nas/call", b'{"timeout": NaN}', 400, "NaN"),
        ("/guests/nas/call", b"[]", 422, "not a JSON object"),
        ("/guests/nas/call", b" " * 70000, 413, "65536"),
        ("/nowhere", {}, 404, "/nowhere"),
        ("/guests", {}, 405, "POST /guests"),
        ("/reload", {}, 409, "without --config"),
    ],
)
def test_bad_input_is_rejected_with_a_remedy(
    served: httpx.Client, path: str, body: object, status: int, why: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.post(path, content=content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"what", "why", "remedy"}
    assert all(error.values())
    assert why in error["why"]
    assert served.get("/guests").status_code == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("served")
    with controlled(folder) as (_, http), answering(folder / "nas", {}):
        yield http


def test_remedy_for_a_dangerous_command_is_what_to_do(tmp_path: Path) -> None:
    with controlled(tmp_path) as (_, http), answering(tmp_path / "nas", {}):
        _, refused = post(http, "/guests/nas/call", command="get_default_pw")
    assert refused["error"]["remedy"] == (
        "to send it anyway, start the daemon with --allow-dangerous yes and add --i-know-this-is-dangerous "
        '(over HTTP "i_know_this_is_dangerous": true)'
    )


def test_dangerous_commands_need_both_permissions(tmp_path: Path) -> None:
    with (
        controlled(tmp_path, "--allow-dangerous", "yes") as (_, http),
        answering(tmp_path / "nas", {19: b"secret\0"}),
    ):
        status, refused = post(http, "/guests/nas/call", command="get_default_pw")
        assert (status, refused["error"]["what"]) == (403, "dangerous")
        assert "i_know_this_is_dangerous" in refused["error"]["remedy"]
        assert "--allow-dangerous" not in refused["error"]["remedy"]
        status, found = post(http, "/guests/nas/call", command="get_default_pw", i_know_this_is_dangerous=True)
        assert (status, found["answer"]["text"]) == (200, "secret")
