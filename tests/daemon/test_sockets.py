"""Sockets: made safely, refused clearly, and gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving import (
    ENVIRONMENT,
    PATIENCE,
    VHOSTCOMM,
    FakeGuest,
    Serving,
    fake_guest,
    held_port,
    run_vhostcomm,
    until,
)
from vhostcomm.config.load import load

LOCK = f".vhostcomm-{os.geteuid()}.lock"
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def powerless(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """vhostcomm without root's rights and in no other group, as a service's user runs it."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*without, *VHOSTCOMM, *map(str, words)],
        env=ENVIRONMENT, timeout=PATIENCE, capture_output=True, text=True, check=False,
    )  # fmt: skip


def refused(*words: str | Path, status: int = 1, **options: object) -> str:
    """The one message of a daemon that doesn't start."""
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


def test_a_killed_daemon_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path, expect_exit=None) as daemon:
        daemon.stop(signal.SIGKILL)
    assert path.exists()
    with Serving("--sock", path), fake_guest(path) as guest:
        assert guest.serial()
    assert not any(tmp_path.iterdir())


def test_a_socket_somebody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        assert f"use connect:{path}" in refused("--sock", path)
        waiting = []
        for _ in range(3):  # a full backlog is alive, too
            more = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            more.connect_ex(str(path))
            waiting.append(more)
        assert "somebody listens there already" in refused("--sock", path)
        for more in waiting:
            more.close()
    assert [each.name for each in tmp_path.iterdir()] == ["guest"]


def test_a_second_daemon(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path):
        assert "another process serves it already" in refused("--sock", path)
        path.unlink()  # even then: the lock tells
        assert "another process serves it already" in refused("--sock", path)


@pytest.mark.parametrize("kind", ["a file", "a symbolic link", "a folder"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "guest"
    target = tmp_path / "target"
    match kind:
        case "a file":
            path.write_text("precious")
        case "a folder":
            path.mkdir()
        case _:
            path.symlink_to(target)
    before = path.lstat()
    message = refused("--sock", path)
    assert f"{kind} stands where the socket should be" in message
    assert path.lstat().st_ino == before.st_ino
    assert not target.exists()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_is_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    assert "lock can't be made" in refused("--sock", tmp_path / "guest")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_folder(tmp_path: Path) -> None:
    message = refused("--sock", tmp_path / "no" / "guest", status=78)
    assert "No such file or directory" in message
    assert f"install -d -m 0700 {tmp_path}/no" in message


def test_one_that_fails_stops_all(tmp_path: Path) -> None:
    """Nothing is half served, nothing is left."""
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
        ("tcp:[fe80::1%any text]:1", "no IPv6 address"),
        ("tcp:[fe80::1%sixteen-letters-]:1", "no IPv6 address"),
        ("tcp:[:::::]:1", "no IPv6 address"),
        ("", "it is empty"),
    ],
)
def test_bad_sockets_are_a_mistake_in_the_command_line(tmp_path: Path, sock: str, what: str) -> None:
    message = refused("--sock", tmp_path / "good", "--sock", sock, status=2)
    assert what in message
    assert "for example" in message
    assert not any(tmp_path.iterdir())


def test_a_path_of_107_bytes(tmp_path: Path) -> None:
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


def test_names(tmp_path: Path) -> None:
    with Serving("--sock", f"nas-1.b_c={tmp_path}/any name") as daemon, fake_guest(tmp_path / "any name") as guest:
        assert guest.serial()
        daemon.event("guest ready", guest="nas-1.b_c")


def test_two_guests_of_one_name_or_socket(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert "give this one a different name" in refused(
        "--sock", tmp_path / "g", "--sock", tmp_path / "b" / "g", status=2
    )
    assert "has the socket" in refused("--sock", tmp_path / "g", "--sock", f"h={tmp_path}/g", status=2)


def test_mode_and_group(tmp_path: Path) -> None:
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    words = ["--socket-mode", "0660", "--socket-group", str(group)]
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    with Serving("--sock", uuid, *words, env=environment):
        found = (tmp_path / "run" / uuid).lstat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == group
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o710
    with Serving("--sock", tmp_path / "plain", preexec_fn=lambda: os.umask(0)):
        assert stat.S_IMODE((tmp_path / "plain").lstat().st_mode) == 0o600


@pytest.mark.parametrize(("before", "after"), [(0o700, 0o710), (0o770, 0o710), (0o755, 0o755), (0o710, 0o710)])
def test_a_runtime_directory_that_is_there_lets_the_group_through(
    short_path: Path, a_group: int, before: int, after: int
) -> None:
    """Such as one of a daemon before it was given a group; what all may do stays theirs."""
    folder = short_path / "run"
    folder.mkdir()
    folder.chmod(before)
    words = ["--socket-mode", "0660", "--socket-group", str(a_group), "--control", "none"]
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}
    with Serving("--sock", UUID, *words, env=environment):
        found = folder.stat()
        assert stat.S_IMODE(found.st_mode) == after
        assert found.st_gid == (folder.parent.stat().st_gid if before == 0o755 else a_group)
        assert (folder / UUID).stat().st_gid == a_group
        inode = found.st_ino
    with Serving("--sock", UUID, "--control", "none", env=environment):
        assert (stat.S_IMODE(folder.stat().st_mode), folder.stat().st_ino) == (after, inode)


@pytest.fixture
def a_group() -> int:
    """One that isn't what files here get, and that this user may give files to."""
    others = [1234] if os.geteuid() == 0 else [each for each in os.getgroups() if each != os.getegid()]
    if not others:
        pytest.skip("this user is in one group only")
    return others[0]


def test_a_group_that_this_user_may_not_give_files_to(tmp_path: Path) -> None:
    ended = powerless("serve", "--sock", tmp_path / "nas", "--socket-group", "daemon", "--control", "none")
    assert ended.returncode == 78, ended.stderr
    assert f"{tmp_path}/nas: uid {os.geteuid()} may not give files to the group daemon: " in ended.stderr
    assert "Group=daemon in the unit" in ended.stderr
    assert "writable" not in ended.stderr
    assert not any(tmp_path.iterdir())


def test_its_own_group_takes_no_right_to_give(tmp_path: Path) -> None:
    """As in a unit with Group=, whose sandbox refuses chown() even where it changes nothing."""
    chown = "import os, sys, runpy\ndef no(*a, **k): raise PermissionError(1, 'no')\nos.chown = no\n"
    run = f"{chown}sys.argv[0] = 'vhostcomm'\nrunpy.run_module('vhostcomm', run_name='__main__')"
    daemon = Serving("--sock", tmp_path / "nas", "--socket-group", str(os.getegid()), "--control", "none")
    daemon.command = [sys.executable, "-c", run, *daemon.command[len(VHOSTCOMM) :]]
    with daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_lock_of_another_user_names_them(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    folder.chmod(mode)
    lock = folder / LOCK
    lock.touch(0o600)
    os.chown(lock, 65534, 65534)
    for ended in (
        powerless("serve", "--sock", folder / "nas", "--control", "none"),
        run_vhostcomm("serve", "--sock", folder / "nas", "--control", "none"),
    ):
        assert ended.returncode == 78, ended.stderr
        assert "it belongs to nobody (uid 65534): choose another path" in ended.stderr
        assert "writable" not in ended.stderr
    assert [each.name for each in folder.iterdir()] == [LOCK]


@pytest.mark.parametrize(
    ("words", "what", "status"),
    [
        (["--socket-group", "nobody-has-this"], "there is no group 'nobody-has-this'", 78),
        (["--socket-mode", "0477"], "the owner needs to read and write", 2),
        (["--socket-mode", "rw"], "three octal digits", 2),
        (["--frame-rate", "-1"], "it must be 0 to", 2),
        (["--log-level", "loud"], "one of debug, info, warning, error", 2),
        (["--send-timeout", "0"], "not a time in seconds", 2),
        (["--bogus"], "--bogus", 2),
    ],
)
def test_bad_flags(tmp_path: Path, words: list[str], what: str, status: int) -> None:
    assert what in refused("--sock", tmp_path / "guest", *words, status=status)
    assert not any(tmp_path.iterdir())


def test_deleted_socket_is_bound_again(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path, "--socket-mode", "0660") as daemon, fake_guest(path) as guest:
        assert guest.serial()
        for _ in range(2):
            path.unlink()
            daemon.event("socket file deleted or replaced, bound again", guest="guest", sock=str(path))
            assert guest.serial()
            assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        guest.sock.close()
        daemon.event("guest gone")
        with fake_guest(path) as again:
            assert again.serial()
    assert not any(tmp_path.iterdir())


def test_socket_replaced_by_another_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path) as daemon, socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{path}-other")
        other.listen()
        Path(f"{path}-other").rename(path)
        lost = daemon.event("socket file deleted or replaced, QEMU can't connect", guest="guest")
        assert "somebody listens there already" in lost["why"]
        path.unlink()
        daemon.event("socket file deleted or replaced, bound again")
        with fake_guest(path) as guest:
            assert guest.serial()
            path.rename(f"{path}-moved")
            daemon.event("socket file deleted or replaced, bound again")


def test_deleted_socket_of_the_control_surface_is_bound_again(tmp_path: Path) -> None:
    control = tmp_path / "control"
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(control)}
    with Serving("--sock", tmp_path / "nas", "--control", control) as daemon:
        for _ in range(2):  # before anybody asked, and after
            control.unlink()
            daemon.event("socket file deleted or replaced, bound again", sock=str(control))
            assert stat.S_IMODE(control.lstat().st_mode) == 0o600
            assert run_vhostcomm("guests", env=environment).returncode == 0
        control.rename(tmp_path / "moved")
        daemon.event("socket file deleted or replaced, bound again", sock=str(control))
        control.unlink()
        (tmp_path / "file").write_text("precious")
        daemon.event("socket file deleted or replaced, bound again", sock=str(control))
        (tmp_path / "file").rename(control)
        lost = daemon.event("socket file deleted or replaced, clients can't connect", sock=str(control))
        assert "a file stands where the socket should be" in lost["why"]
    assert control.read_text() == "precious"


def test_folder_of_sockets_that_was_deleted(short_path: Path) -> None:
    """The runtime directory is made again, as at a start; any other is waited for."""
    folder, other = short_path / "run", short_path / "other"
    words: list[str | Path] = ["--sock", UUID, "--sock", other / "b", "--control", "none"]
    other.mkdir()
    with Serving(*words, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}) as daemon:
        folder.rename(short_path / "run-before")
        daemon.event("socket file deleted or replaced, bound again", guest=UUID)
        other.rename(short_path / "other-before")
        daemon.event("socket file deleted or replaced, QEMU can't connect", guest="b")
        other.mkdir()
        daemon.event("socket file deleted or replaced, bound again", guest="b")
        with fake_guest(folder / UUID) as a, fake_guest(other / "b") as b:
            assert a.serial() == b.serial()
        (folder / UUID).unlink()
        daemon.event("socket file deleted or replaced, bound again", guest=UUID)


def test_one_descriptor_for_a_guest_that_listens_and_one_for_its_connection(tmp_path: Path) -> None:
    def descriptors(guests: int, stack: ExitStack) -> tuple[int, int]:
        paths = [tmp_path / f"g{guests}-{place}" for place in range(guests)]
        daemon = stack.enter_context(Serving(*(word for path in paths for word in ("--sock", path))))
        folder = Path(f"/proc/{daemon.process.pid}/fd")
        idle = len(list(folder.iterdir()))
        for path in paths:
            assert stack.enter_context(fake_guest(path)).serial()
        return idle, len(list(folder.iterdir()))

    with ExitStack() as stack:
        few, many = descriptors(1, stack), descriptors(41, stack)
    assert (many[0] - few[0], many[1] - few[1]) == (40, 80)


def retrying(path: Path) -> socket.socket:
    """A connection, made as soon as it is accepted, as QEMU does it."""
    made = socket.socket(socket.AF_UNIX)
    until(lambda: made.connect_ex(str(path)) == 0, "the connection")
    return made


def test_last_descriptors_go_to_connections(tmp_path: Path) -> None:
    """With one descriptor less than two for each guest, all are served, and listen again afterwards."""
    paths = [tmp_path / f"g{place}" for place in range(40)]
    words = [word for path in paths for word in ("--sock", path)]
    with Serving(*words) as daemon:
        alone = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) - len(paths)
    with Serving(*words, shell=f"ulimit -n {alone + 2 * len(paths) - 1}") as daemon:
        for _ in range(2):
            with ExitStack() as stack:
                guests = [FakeGuest(stack.enter_context(retrying(path))) for path in paths]
                assert all(guest.serial() for guest in guests)
            for _ in paths:
                daemon.event("guest gone")


def test_somebody_elses_socket_in_our_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path) as daemon, socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{path}-other")
        other.listen()
        Path(f"{path}-other").rename(path)
        daemon.event("socket file deleted or replaced, QEMU can't connect")
    assert path.exists()


def test_a_tcp_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert "can't be bound: Address already in use" in refused("--sock", f"tcp:127.0.0.1:{port}")


def test_a_folder_to_watch_that_is_not_there(tmp_path: Path) -> None:
    message = refused("--watch", tmp_path / "no", "--sock", tmp_path / "nas", status=78)
    assert f"can't be watched: No such file or directory; make it: install -d -m 0700 {tmp_path}/no" in message
    assert not any(tmp_path.iterdir())


def test_a_runtime_directory_that_everybody_can_write_to(short_path: Path) -> None:
    folder = short_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}
    assert "chmod go-w" in refused("--sock", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", env=environment, status=78)


@pytest.mark.parametrize("mode", [0o775, 0o770])
def test_runtime_directory_writable_for_its_group_is_rejected(short_path: Path, mode: int) -> None:
    folder = short_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    message = refused("--sock", UUID, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}, status=78)
    assert f"others can write to it (mode {mode:04o})" in message
    assert f"chmod go-w {folder}" in message
    assert not any(folder.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of others")
def test_runtime_directory_of_another_user_is_rejected(short_path: Path) -> None:
    folder = short_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    message = refused("--sock", UUID, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}, status=78)
    assert "it belongs to uid 12345, who could replace the sockets in it" in message
    assert not any(folder.iterdir())


def test_example_for_a_path_that_is_too_long_is_short(short_path: Path) -> None:
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path / ("r" * 90))}
    message = refused("--sock", UUID, env=environment, status=2)
    assert "a unix socket's path at most 107" in message
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


def test_a_lock_that_is_somebodys_file(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("precious")
    ended = run_vhostcomm("serve", "--sock", tmp_path / "nas")
    assert ended.returncode == 1
    assert "is no lock" in ended.stderr
    assert (tmp_path / LOCK).read_text() == "precious"


def test_a_qemu_whose_socket_does_not_let_us_in(tmp_path: Path) -> None:
    """The log and the list of guests say so, and when somebody mends it, it is connected to."""
    path = tmp_path / "qemu"
    with socket.socket(socket.AF_UNIX) as qemu:
        qemu.bind(str(path))
        qemu.listen()
        path.chmod(0)
        mere = 'exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"' if os.geteuid() == 0 else ""
        control = tmp_path / "control.sock"
        with Serving("--sock", f"connect:{path}", "--control", control, shell=mere) as daemon:
            assert "let our user in" in daemon.event("QEMU's socket refuses us", why="Permission denied")["remedy"]
            listed = run_vhostcomm("guests", "--control", control).stdout
            assert f"QEMU is not connected to connect:{path}: Permission denied; let our user in" in listed
            path.chmod(0o600)
            daemon.event("guest connected")
            assert "Permission denied" not in run_vhostcomm("guests", "--control", control).stdout
