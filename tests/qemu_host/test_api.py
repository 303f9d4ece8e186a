"""The HTTP API, to the byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.qemu_host.running import QemuHost, answering, asking, error, ok, request
from tests.serving import Serving, fake_guest, run_vhostcomm, until
from tests.trio_help import run
from vchannel import Command, GuestCommand
from vhostcomm.config.address import Listen
from vhostcomm.control.listener import HttpListener
from vhostcomm.log.logs import start_log
from vhostcomm.qemu_host.api import DEFAULT_TIMEOUT, QemuHostApi

INFORMATION = b'{"data": {"dsm_setting":{"data":{"http_port":5000}}, "x":1.50}}\0'


@pytest.mark.slow
def test_answers_of_the_api(tmp_path: Path) -> None:
    answers = {
        10: INFORMATION,
        2: b"192.0.2.7\0",
        5: b"",
        6: b"",
        8: b"\0",
        11: b'{"half": "a\0',
        14: b'a "quote" \\ and\nnewline \x1b[31m\xc2\x9b\xff\0',
        15: b'["\xc2\x9b\xe2\x80\xae\xc3\xa9"]\0',
        16: "größer".encode() + b"\0",
        18: b'{"n":1e999}\0',
        99: b"[" * 4000,
    }
    with QemuHost(tmp_path) as host:
        assert host.get("/read?command=10") == error("No connection to guest")
        assert host.get("/write?command=10") == error("No connection to guest")
        with answering(host.sock, lambda request: answers[int(request.command)]):
            assert host.get("/read?command=10") == ok(INFORMATION[:-1].decode())
            assert host.get("/read?command=2&timeout=3") == ok('"192.0.2.7"')
            assert host.get("/read?command=5") == error("Received no data for command 5")
            assert host.get("/read?command=8") == error("Received no data for command 8")
            assert host.get("/read?command=6&timeout=90") == ok("null")
            assert host.get("/read?command=11") == ok(r'"{\"half\": \"a"')
            assert host.get("/read?command=14") == ok(r'"a \"quote\" \\ and\nnewline \u001b[31m\u009b�"')
            assert host.get("/read?command=15") == ok(r'["\u009b\u202eé"]')
            assert host.get("/read?command=16") == ok('"größer"')
            assert host.get("/read?command=18") == ok('{"n":1e999}')
            assert host.get("/read?command=99") == ok('"' + "[" * 4000 + '"')
            assert host.get("/write?command=6") == ok("null")
            assert host.get("/read?command=2", "POST") == ok('"192.0.2.7"')


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "No command specified"),
        ("/read", "No command specified"),
        ("/read?command=", "No command specified"),
        ("/write?timeout=5", "No command specified"),
        ("/elsewhere?command=10", "No command specified"),
        ("/read?command=ten", "Failed to parse command: ten"),
        ("/read?command=-1", "Failed to parse command: -1"),
        ("/read?command=1.5", "Failed to parse command: 1.5"),
        ("/write?command=99999999999999999999", "Failed to parse command: 99999999999999999999"),
        ("/read?command=%22%0A%1b", r"Failed to parse command: \"\n\u001b"),
        ("/read?command=%ff%00", r"Failed to parse command: �\u0000"),
        ("/read?command=10&timeout=x", "Failed to parse timeout: x"),
        ("/read?command=10&timeout=0", "Failed to parse timeout: 0"),
        ("/read?command=10&timeout=-5", "Failed to parse timeout: -5"),
        ("/read?command=10", "No connection to guest"),
        ("/read?command=10&command=x&timeout=5&timeout=x", "No connection to guest"),
        ("/write?command=10", "No connection to guest"),
    ],
)
@pytest.mark.slow
def test_invalid_requests_are_rejected(path: str, message: str, idle: QemuHost) -> None:
    assert idle.get(path) == error(message)
    assert json.loads(idle.get(path, "POST")[1])["status"] == "error"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> object:
    with QemuHost(tmp_path_factory.mktemp("idle")) as host:
        yield host


@pytest.mark.slow
def test_requests_time_out(tmp_path: Path) -> None:
    with QemuHost(tmp_path, "-timeout=1") as host, fake_guest(host.sock) as guest:
        # Connected, but silent so far: its next boot would carry out a command that is sent now.
        assert host.get("/read?command=10") == error("No connection to guest")
        guest.serial()
        assert host.get("/read?command=10") == error("Timeout while reading command 10 from guest")
        with asking(host.api, "/read?command=10") as found:
            assert guest.next_request().command is GuestCommand.GET_INFORMATION
            until(lambda: found)
        assert found == [error("Timeout while reading command 10 from guest")]


def test_an_answer_after_a_minute_is_returned(short_path: Path) -> None:
    """A guest may need a minute to shut down; no timeout of the HTTP server may end the request."""

    async def ask(command: Command, timeout: float, by: str) -> bytes:
        assert (command, timeout) == (GuestCommand.POWEROFF, 90)
        await trio.sleep(80)
        return b""

    async def notify(command: Command, timeout: float, by: str) -> None:
        raise AssertionError

    async def main() -> str:
        with closing(HttpListener(Listen(short_path / "api"))) as listener:
            api = QemuHostApi(ask, notify, log, DEFAULT_TIMEOUT, names=None, allow_dangerous=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(api.serve, listener)
                async with await trio.open_unix_socket(short_path / "api") as client:
                    await client.send_all(
                        b"GET /read?command=6&timeout=90 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                    )
                    answer = b"".join([part async for part in client]).decode()
                nursery.cancel_scope.cancel()
        return answer

    log, sink = start_log("info", "json", sys.stderr)
    try:
        answer = run(main)
    finally:
        sink.close(1.0)
    status, body = ok("null")
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert answer.endswith(f"\r\n\r\n{body}")


def test_a_request_fails_when_the_guest_disconnects(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.serial()
        with asking(host.api, "/read?command=10") as found:
            guest.next_request()
            guest.sock.close()
        assert found == [error("Failed reading command 10 from guest: guest disconnected")]
        assert host.get("/read?command=10") == error("No connection to guest")


def test_a_newer_connection_replaces_one_that_ended(tmp_path: Path) -> None:
    """For example, QEMU was restarted during a request."""
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.serial()
        with asking(host.api, "/read?command=10") as found:
            guest.next_request()
            guest.sock.close()
            with fake_guest(host.sock) as newer:
                newer.serial()
        assert found == [error("Failed reading command 10 from guest: guest disconnected")]


@pytest.mark.slow
def test_odd_answers_are_unchanged(tmp_path: Path) -> None:
    """An invalid byte doesn't turn a document into a string, and a number or a word stays a string."""
    answers = {
        20: (b'{"name": "\xff", "ip": "10.0.2.15"}\0', '{"name": "\ufffd", "ip": "10.0.2.15"}'),
        21: (
            rb'{"name": "\ud800", "pair": "\ud83d\ude00", "text": "\\ud800"}',
            r'{"name": "\ufffd", "pair": "\ud83d\ude00", "text": "\\ud800"}',
        ),
        22: (rb'["\udc00\ud800x"]', r'["\ufffd\ufffdx"]'),
        23: (b'{"n":1e999}\0', '{"n":1e999}'),
        24: (b'{"n":NaN}\0', r'"{\"n\":NaN}"'),
        25: (b"4711\0", '"4711"'),
        26: (b"null\0", '"null"'),
        27: (b'"quoted"\0', r'"\"quoted\""'),
        28: (b" \n\0", "null"),
        29: (b"one\0two\0", '"onetwo"'),
        30: (b'{"a": 1}\0rest of an older one}', '{"a": 1}'),
        31: (b'{"a": "x\0y"}\0', '{"a": "xy"}'),
        32: (b"\xed\xa0\x80\0", '"\ufffd\ufffd\ufffd"'),
    }
    with QemuHost(tmp_path) as host, answering(host.sock, lambda request: answers[int(request.command)][0]):
        for command, (_, data) in answers.items():
            status, body = host.get(f"/read?command={command}")
            assert (status, body) == ok(data), command
            json.loads(body)
        for empty in (b"", b"\0", b"\0\0"):
            answers[33] = (empty, "")
            assert host.get("/read?command=33") == error("Received no data for command 33")


def test_frames_to_the_guest_have_the_fields_of_qemu_host(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, fake_guest(host.sock) as guest:
        guest.serial()
        assert host.get("/write?command=6") == ok("null")
        assert host.get("/write?command=77") == ok("null")
        first, second = guest.next_request().frame, guest.next_request().frame
        assert (first.command, first.guest_id, first.needs_response, first.data, first.sub_command) == (
            6, 10_000_000, 0, b"", 1,
        )  # fmt: skip
        assert (second.command, second.needs_response) == (77, 0)
        assert first.request_id != second.request_id


@pytest.mark.needs("curl")
def test_curl_gets_an_answer_over_the_unix_socket(tmp_path: Path) -> None:
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: INFORMATION):
        command = [
            "curl",
            "-s",
            "-X",
            "POST",
            "-d",
            "x=1",
            "--unix-socket",
            str(host.api),
            "http://localhost/read?command=10",
        ]
        got = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert got == ok(INFORMATION[:-1].decode())[1]


def test_serve_offers_the_api(tmp_path: Path) -> None:
    sock, api = tmp_path / "guest", tmp_path / "api"
    with Serving("--sock", sock, "--qemu-host-api", f"unix:{api}", "--guest-serial", "1234ABC567890"):
        assert api.stat().st_mode & 0o777 == 0o600
        with answering(sock, lambda _: INFORMATION):
            assert request(api, "/read?command=10") == ok(INFORMATION[:-1].decode())
    assert not api.exists()


def test_serve_rejects_dangerous_commands_and_logs_the_client(tmp_path: Path) -> None:
    sock, api, reset = tmp_path / "guest", tmp_path / "api", "/read?command=12"
    served: list[str | Path] = ["--sock", sock, "--qemu-host-api", f"unix:{api}", "--control", tmp_path / "control"]
    with Serving(*served) as daemon, answering(sock, lambda _: b"done\0"):
        assert request(api, reset) == error("Failed sending command 12 to guest")
        assert "--allow-dangerous" in daemon.event("command not sent")["why"]
        assert request(api, "/read?command=6") == ok('"done"')
        assert daemon.event("stop requested")["by"] == f"qemu-host API: pid {os.getpid()}"
    with Serving(*served, "--allow-dangerous", "yes"), answering(sock, lambda _: b"done\0"):
        assert request(api, reset) == ok('"done"')
    with QemuHost(tmp_path) as host, answering(host.sock, lambda _: b"done\0"):
        assert host.get(reset) == ok('"done"')


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sock", "one=a", "--sock", "two=b"), "there are 2"),
        (("--sock", "one=a", "--watch", "."), "watched directories"),
    ],
)
def test_serve_offers_the_api_for_one_guest_only(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    refused = run_vhostcomm("serve", *words, "--qemu-host-api", str(tmp_path / "api"), cwd=tmp_path)
    assert refused.returncode == 2
    assert "--qemu-host-api: qemu-host's API is for one guest" in refused.stderr
    assert says in refused.stderr
