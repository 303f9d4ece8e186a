"""The probe asks and complains like a guest."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.captures.make_golden import FOLDER
from tests.serving import ENVIRONMENT, Serving, fake_guest, run_vhostcomm
from vchannel import NEED_DATA, Connection, HostCommand, Request, Role, SkipReason
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import (
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    SkippedRecord,
    format_capture,
)
from vhostcomm.capture.reading import read_capture

TIMEOUT_LINES = [
    "install.cgi: guest_command.c:86 Failed to retrieve message from host [timeout]",
    "install.cgi: vdsm_get_update_deadline.c:41 Failed to get vdsm update deadline.",
    "install.cgi: The vdsm is newer than license expire time.",
    "synoagentregisterd: guest_command.c:86 Failed to retrieve message from host [timeout]",
    "synoagentregisterd: vdsm_serial.c:84 Failed to get vdsm sn",
    "synoagentregisterd: vdsm_serial.c:128 Failed to get vdsm sn",
]


def test_probe_prints_a_table_of_answers(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--guest-serial", "1234ABC567890", "--vcpus", "4"):
        probed = run_vhostcomm("probe", "--sock", tmp_path / "nas")
    assert probed.returncode == 0, probed.stderr
    assert probed.stderr == ""
    rows = [line.split() for line in probed.stdout.splitlines()]
    assert rows[0] == ["COMMAND", "MS", "ANSWER"]
    serial = next(row for row in rows if row[1] == "GUEST_SERIAL")
    assert (serial[0], serial[3]) == ("5", "1234ABC567890")
    assert float(serial[2]) > 0
    assert '"vcpu_num":4' in probed.stdout


def test_probe_prints_json(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas"):
        probed = run_vhostcomm("probe", "--sock", tmp_path / "nas", "--json")
    report = json.loads(probed.stdout)
    assert report["reached"] is True
    asked = {answer["name"]: answer for answer in report["answers"]}
    assert set(asked) == {each.name for each in HostCommand} - {"GUEST_INFO", "GUEST_POWER", "GUEST_TIMESTAMP"}
    assert asked["UPDATE_DEADLINE"]["answer"] == "9223372036854775807"
    assert not any(answer["missing"] for answer in report["answers"])


def test_probe_accepts_a_uuid_for_a_socket(short_path: Path) -> None:
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path)}
    with Serving("--sock", uuid, env=environment):
        assert uuid in run_vhostcomm("probe", "--sock", uuid, env=environment).stdout


@pytest.mark.parametrize(
    ("kind", "advice"), [("nothing", "no such socket"), ("stale", "leftover"), ("file", "not a socket")]
)
def test_probe_without_a_daemon_fails_with_advice(tmp_path: Path, kind: str, advice: str) -> None:
    path = tmp_path / "nas"
    if kind == "file":
        path.write_text("")
    elif kind == "stale":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    probed = run_vhostcomm("probe", "--sock", path)
    assert probed.returncode == 1
    lines = probed.stderr.splitlines()
    assert lines[-6:] == TIMEOUT_LINES
    assert advice in lines[1]
    report = json.loads(run_vhostcomm("probe", "--sock", path, "--json").stdout)
    assert report["reached"] is False


def test_probe_suggests_the_socket_in_the_runtime_directory(short_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path)}
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(short_path / "nas"))
        there.listen()
        probed = run_vhostcomm("probe", "nas", env=environment)
        capture = FOLDER / "graceful-stop.jsonl"
        replayed = run_vhostcomm("capture", "replay", capture, "--sock", "nas", env=environment)
        there.setblocking(False)
        with pytest.raises(BlockingIOError):  # a daemon would take a connection for QEMU's
            there.accept()
    assert f"There is no such socket; did you mean {short_path}/nas?\n" in probed.stderr
    assert f"did you mean {short_path}/nas?" in replayed.stderr


def test_probe_suggests_the_socket_of_the_guest_with_that_name(short_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path)}
    with Serving("--sock", f"nas={short_path}/elsewhere", env=environment):
        probed = run_vhostcomm("probe", "nas", env=environment)
    assert f"There is no such socket; did you mean {short_path}/elsewhere?\n" in probed.stderr


def test_probe_suggests_no_leftover(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_path / "nas"))
    probed = run_vhostcomm("probe", "nas", env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path)})
    assert "There is no such socket. Is the daemon running?" in probed.stderr
    assert "did you mean" not in probed.stderr


def test_probe_names_the_systems_error_for_tcp() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"tcp:127.0.0.1:{bound.getsockname()[1]}"
        probed = run_vhostcomm("probe", where)
    assert probed.stderr.startswith(f"vhostcomm: {where}: Connection refused\n")


def test_probe_reports_missing_answers(tmp_path: Path) -> None:
    """The host answers the serial number; its other answers are empty or missing."""
    path = tmp_path / "nas"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        thread = threading.Thread(target=_poor_host, args=(server,))
        thread.start()
        probed = run_vhostcomm("probe", "--sock", path, "--timeout", "0.2")
        thread.join()
    assert probed.returncode == 1
    assert probed.stderr.splitlines()[:3] == TIMEOUT_LINES[:3]
    assert TIMEOUT_LINES[4] not in probed.stderr
    assert "11 of 12 answers are missing" in probed.stderr or "10 of 12 answers are missing" in probed.stderr
    assert "no answer" in probed.stdout
    assert "(empty)" in probed.stdout


def _poor_host(server: socket.socket) -> None:
    sock, _ = server.accept()
    connection = Connection(Role.HOST)
    with suppress(ConnectionError), sock:  # a probe that ends with answers unread resets the connection
        while data := sock.recv(65536):
            connection.receive_data(data)
            while (event := connection.next_event()) is not NEED_DATA:
                match event:
                    case Request(command=HostCommand.GUEST_SERIAL, needs_response=True):
                        sock.sendall(connection.send(event.reply(b"0000000000000\0")))
                    case Request(command=HostCommand.HOST_MAC | HostCommand.HOST_VERSION_SECOND, needs_response=True):
                        sock.sendall(connection.send(event.reply()))
                    case _:
                        pass


def test_probe_beside_a_connected_guest_is_refused(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas"), fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()
        probed = run_vhostcomm("probe", "--sock", tmp_path / "nas")
        assert probed.returncode == 1
        assert "If QEMU is connected, its guest is being answered" in probed.stderr
        assert "A guest would log" not in probed.stderr
        assert guest.serial()


def test_a_replay_ends_its_connection_where_the_guest_did(tmp_path: Path) -> None:
    """Two connections end within a frame. Their replay is recorded in the same way: two connections, and no silence."""
    first, again = tmp_path / "first.jsonl", tmp_path / "again.jsonl"
    with Serving("--sock", tmp_path / "nas", "--record", first) as daemon:
        for _ in range(2):
            with fake_guest(tmp_path / "nas") as guest:
                assert guest.serial()
                # The answer may come after the guest has disconnected.
                guest.sock.sendall(Request.of(HostCommand.HOST_MAC).raw + b"half")
            daemon.event("guest gone")
    with Serving("--sock", tmp_path / "nas", "--record", again) as daemon:
        replayed = run_vhostcomm("capture", "replay", first, "--sock", tmp_path / "nas")
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr
        assert replayed.stdout == "4 replies compared, 0 differences\n"
        for _ in range(2):
            daemon.event("guest gone")
    assert len([line for line in daemon.log if line["event"] == "guest connected"]) == 2
    captures = [read_capture(path.read_text().splitlines(keepends=True), str(path)) for path in (first, again)]
    assert [record.why for record in captures[1].records if isinstance(record, SkippedRecord)] == [
        SkipReason.CLOSED,
        SkipReason.CLOSED,
    ]
    assert [str(each) for each in compare(*captures, request_ids=True)] == []


def test_a_reply_that_the_capture_does_not_have_is_a_difference(tmp_path: Path) -> None:
    asked = Request.of(HostCommand.GUEST_SERIAL)
    header = CaptureHeader(datetime(2026, 1, 2, tzinfo=UTC), "test", Origin.RECONSTRUCTED, "from a test")
    records = (
        FrameRecord(0, Direction.TO_HOST, asked.frame),
        SkippedRecord(0, Direction.TO_HOST, b"half", SkipReason.CLOSED),
        FrameRecord(1, Direction.TO_HOST, Request.of(HostCommand.GUEST_POWER, needs_response=False).frame),
    )
    path = tmp_path / "made.jsonl"
    path.write_text("".join(format_capture(Capture(header, records))))
    with Serving("--sock", tmp_path / "nas"):
        replayed = run_vhostcomm("capture", "replay", path, "--sock", tmp_path / "nas")
    assert replayed.returncode == 1
    assert replayed.stdout.splitlines() == [
        "   -  a reply that the capture doesn't have: command 5",
        "0 replies compared, 1 difference",
    ]


def test_replay_reports_a_broken_connection(tmp_path: Path) -> None:
    path = tmp_path / "nas"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def breaks() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(1)  # closed with bytes that nobody has read

        thread = threading.Thread(target=breaks)
        thread.start()
        # It sends one frame and waits for the answer.
        replayed = run_vhostcomm("capture", "replay", FOLDER / "graceful-stop.jsonl", "--sock", path)
        thread.join()
    assert replayed.returncode == 1
    assert (
        "the connection ended: Connection reset by peer\nIf QEMU is connected, its guest is being answered"
        in replayed.stderr
    )
    assert "Traceback" not in replayed.stderr


def test_replay_rejects_an_invalid_timeout() -> None:
    replayed = run_vhostcomm("capture", "replay", FOLDER / "every-command.jsonl", "--sock", "/x", "--timeout", "-1")
    assert replayed.returncode == 2
    assert "--timeout is -1: expected seconds" in replayed.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "SOCK is missing"),
        (["--sock", "connect:/x"], "acts as a guest"),
        (["--sock", "/x", "--timeout", "0"], "more than 0"),
    ],
)
def test_probe_rejects_wrong_arguments(words: list[str], what: str) -> None:
    probed = run_vhostcomm("probe", *words)
    assert probed.returncode == 2
    assert what in probed.stderr
