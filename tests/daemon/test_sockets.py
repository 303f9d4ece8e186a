"""Sockets: made safely, rejected with a reason, and gone at the end."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.serving import (
    ENVIRONMENT,
    TIMEOUT,
    VHOSTCOMM,
    Serving,
    fake_guest,
    held_port,
    run_vhostcomm,
)
from vhostcomm.channel.locks import lock_file, locked
from vhostcomm.config.load import load
from vhostcomm.daemon.ports import BATCH

LOCK = f".vhostcomm-{os.geteuid()}.lock"
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def powerless(*words: str | Path, env: dict[str, str] = ENVIRONMENT) -> subprocess.CompletedProcess[str]:
    """vhostcomm without root's rights and in no other group, as a service's user runs it."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*without, *VHOSTCOMM, *map(str, words)],
        env=env, timeout=TIMEOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def refused(*words: str | Path, status: int = 1, **options: object) -> str:
    """The error message of a daemon that doesn't start."""
    ended = run_vhostcomm("serve", *words, **options)  # type: ignore[arg-type]
    assert ended.returncode == status, ended
    assert ended.stderr.startswith("vhostcomm: ")
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Serving("--sock", path), fake_guest(path) as guest:
        assert guest.serial()


def test_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path, expect_exit=None) as daemon:
        daemon.stop(signal.SIGKILL)
    assert path.exists()
    with Serving("--sock", path), fake_guest(path) as guest:
        assert guest.serial()
    assert not any(tmp_path.iterdir())


def test_a_live_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        assert f"use connect:{path}" in refused("--sock", path)
        waiting = []
        for _ in range(3):  # a socket with a full backlog is alive, too
            more = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            more.connect_ex(str(path))
            waiting.append(more)
        assert "another process already listens there" in refused("--sock", path)
        for more in waiting:
            more.close()
    assert [each.name for each in tmp_path.iterdir()] == ["guest"]


def test_a_second_daemon_for_a_socket_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path):
        assert "another process already serves it" in refused("--sock", path)
        path.unlink()  # the lock still shows that the first daemon runs
        assert "another process already serves it" in refused("--sock", path)


@pytest.mark.parametrize("kind", ["a file", "a symbolic link", "a directory"])
def test_only_a_socket_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "guest"
    target = tmp_path / "target"
    match kind:
        case "a file":
            path.write_text("precious")
        case "a directory":
            path.mkdir()
        case _:
            path.symlink_to(target)
    before = path.lstat()
    message = refused("--sock", path)
    assert f"{kind} is in the place of the socket" in message
    assert path.lstat().st_ino == before.st_ino
    assert not target.exists()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    assert "lock can't be made" in refused("--sock", tmp_path / "guest")
    assert not (tmp_path / "elsewhere").exists()


def test_only_our_own_lock_is_removed(tmp_path: Path) -> None:
    """A lock file belongs to another daemon if it replaced ours, or if another daemon has locked it, too."""
    lock = lock_file(tmp_path / "nas")
    with locked(tmp_path / "nas"):
        lock.rename(tmp_path / "moved")
        lock.touch(0o600)
    assert sorted(each.name for each in tmp_path.iterdir()) == [lock.name, "moved"]
    with lock.open("r+b") as other:  # a lock of this open file, which conflicts like one of another process
        record = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 5, 1, 0)
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, record)
        with locked(tmp_path / "nas"):
            pass
        assert lock.exists()
    with locked(tmp_path / "nas"):
        assert lock.exists()
    assert not lock.exists()


def test_error_for_a_missing_folder_has_a_remedy(tmp_path: Path) -> None:
    message = refused("--sock", tmp_path / "no" / "guest", status=78)
    assert "No such file or directory" in message
    assert f"install -d -m 0700 {tmp_path}/no" in message


def test_one_failing_socket_stops_the_whole_start(tmp_path: Path) -> None:
    """No guest is served, and no socket is left."""
    refused("--sock", tmp_path / "a", "--sock", tmp_path / "no" / "b", "--sock", tmp_path / "c", status=78)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sock", "what"),
    [
        ("/x/" + "y" * 120, "at most 107"),
        ("/tmp/my guest", "name it: NAME=/tmp/my guest"),
        ("/tmp/.hidden", "no dot in front"),
        ("bad name=/tmp/x", "a name has 1 to 64 letters"),
        ("nas=", "path is missing"),
        ("connect:", "path is missing"),
        ("tcp:host", "tcp:HOST:PORT"),
        ("tcp:host:99999", "tcp:HOST:PORT"),
        ("tcp:[fe80::1%any text]:1", "not an IPv6 address"),
        ("tcp:[fe80::1%sixteen-letters-]:1", "not an IPv6 address"),
        ("tcp:[:::::]:1", "not an IPv6 address"),
        ("", "it is empty"),
    ],
)
@pytest.mark.slow
def test_bad_sockets_are_a_mistake_in_the_command_line(tmp_path: Path, sock: str, what: str) -> None:
    message = refused("--sock", tmp_path / "good", "--sock", sock, status=2)
    assert what in message
    assert "for example" in message
    assert not any(tmp_path.iterdir())


def test_host_that_can_not_be_resolved_has_a_remedy() -> None:
    message = refused("--sock", "nas=tcp:[fe80::1%no-such]:1")
    assert "the host's name can't be resolved" in message
    assert message.endswith("; use an IP address of this machine\n")


def test_a_path_of_107_bytes_is_served_and_a_longer_one_rejected(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    assert len(str(path)) == 107
    name = f"g={path}"
    if len(path.name) > 64:
        path = tmp_path / ("d" * (len(path.name) - 3)) / "x"
        path.parent.mkdir()
        name = str(path)
    with Serving("--sock", name), fake_guest(path) as guest:
        assert guest.serial()
    assert "108 bytes" in refused("--sock", f"g={path}x", status=2)


def test_a_guest_can_have_another_name_than_its_socket(tmp_path: Path) -> None:
    with Serving("--sock", f"nas-1.b_c={tmp_path}/any name") as daemon, fake_guest(tmp_path / "any name") as guest:
        assert guest.serial()
        daemon.event("guest ready", guest="nas-1.b_c")


def test_two_guests_with_one_name_or_socket_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert "give this one a different name" in refused(
        "--sock", tmp_path / "g", "--sock", tmp_path / "b" / "g", status=2
    )
    assert "has the socket" in refused("--sock", tmp_path / "g", "--sock", f"h={tmp_path}/g", status=2)


@pytest.mark.parametrize(
    ("words", "what", "status"),
    [
        (["--socket-group", "nobody-has-this"], "--socket-group: there is no group 'nobody-has-this'", 78),
        (["--socket-mode", "0477"], "the owner needs to read and write", 2),
        (["--socket-mode", "rw"], "three octal digits", 2),
        (["--frame-rate", "-1"], "it must be 0 to", 2),
        (["--log-level", "loud"], "one of debug, info, warning, error", 2),
        (["--send-timeout", "0"], "not a time in seconds", 2),
        (["--bogus"], "--bogus", 2),
    ],
)
@pytest.mark.slow
def test_bad_flags_are_rejected(tmp_path: Path, words: list[str], what: str, status: int) -> None:
    assert what in refused("--sock", tmp_path / "guest", *words, status=status)
    assert not any(tmp_path.iterdir())


def test_a_tcp_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert "can't be bound: Address already in use" in refused("--sock", f"tcp:127.0.0.1:{port}")


def test_every_reason_why_guests_cannot_be_served_is_reported_once(tmp_path: Path) -> None:
    config, first = tmp_path / "vhostcomm.toml", tmp_path / "first"
    names = [f"g{number}" for number in range(BATCH + 1)]
    missing = "".join(f'[guests.{name}]\nsock = "{tmp_path}/none/{name}"\n' for name in names)
    config.write_text(missing)
    why = f"{tmp_path}/none/{LOCK}: the sockets' lock can't be made: No such file or directory; make its directory: "
    (line,) = refused("--config", config, status=78).splitlines()
    assert line.startswith(f"vhostcomm: {why}")
    first.mkdir()
    config.write_text(f'{missing}[guests.first]\nsock = "{first}"\n')
    count, *reasons = refused("--config", config, status=78).splitlines()
    assert count == "vhostcomm: 2 reasons why guests can't be served:"
    for reason, expected in zip(reasons, (why, f"{first}: a directory is in the place of the socket"), strict=True):
        assert reason.startswith(f"  {expected}")


def test_error_for_a_missing_watched_folder_has_a_remedy(tmp_path: Path) -> None:
    message = refused("--watch", tmp_path / "not here", "--sock", tmp_path / "nas", status=78)
    assert f"can't be watched: No such file or directory; make it: install -d -m 0700 '{tmp_path}/not here'" in message
    assert not any(tmp_path.iterdir())


def test_example_for_a_path_that_is_too_long_is_short(short_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path / ("r" * 90))}
    message = refused("--sock", UUID, env=environment, status=2)
    assert "a unix socket's path has at most 107" in message
    example = message.rpartition("for example: ")[2].strip()
    assert load(socks=[example], environment=environment).guests


def test_ipv6_address_is_logged_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    with held_port("::1") as port, Serving("--sock", f"nas=tcp:[::1]:{port}") as daemon:
        daemon.event("waiting for QEMU", sock=f"tcp:[::1]:{port}")
        with socket.create_connection(("::1", port)):
            assert daemon.event("guest connected")["peer"].startswith("[::1]:")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        taken = f"tcp:[::1]:{other.getsockname()[1]}"
        assert f"{taken}: can't be bound" in refused("--sock", f"nas={taken}")
