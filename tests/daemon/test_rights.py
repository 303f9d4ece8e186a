"""Who may use the sockets: modes, groups, folders and locks of other users."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.test_sockets import LOCK, UUID, powerless, refused
from tests.serving import (
    ENVIRONMENT,
    VHOSTCOMM,
    Serving,
    fake_guest,
    run_vhostcomm,
    started,
)
from vhostcomm.config.address import runtime_directory


@pytest.mark.slow
def test_sockets_have_the_given_mode_and_group(short_path: Path) -> None:
    group = os.getgroups()[0] if os.getgroups() else os.getgid()
    words = ["--socket-mode", "0660", "--socket-group", str(group)]
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(short_path / "run")}
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    with Serving("--sock", uuid, *words, env=environment):
        found = (short_path / "run" / uuid).lstat()
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == group
        assert stat.S_IMODE((short_path / "run").stat().st_mode) == 0o710
    with Serving("--sock", short_path / "plain", preexec_fn=lambda: os.umask(0)):
        assert stat.S_IMODE((short_path / "plain").lstat().st_mode) == 0o600


@pytest.mark.parametrize(("before", "after"), [(0o700, 0o710), (0o770, 0o710), (0o755, 0o755), (0o710, 0o710)])
@pytest.mark.slow
def test_existing_runtime_directory_lets_the_group_through(
    short_path: Path, a_group: int, before: int, after: int
) -> None:
    """For example, an earlier daemon without a group made it. Rights of all users stay."""
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
    """A group that this user may give files to, other than the group of new files."""
    others = [1234] if os.geteuid() == 0 else [each for each in os.getgroups() if each != os.getegid()]
    if not others:
        pytest.skip("this user is in one group only")
    return others[0]


@pytest.mark.slow
def test_error_for_a_group_without_this_user_has_a_remedy(tmp_path: Path) -> None:
    ended = powerless("serve", "--sock", tmp_path / "nas", "--socket-group", "daemon", "--control", "none")
    assert ended.returncode == 78, ended.stderr
    assert f"{tmp_path}/nas: uid {os.geteuid()} may not give files to the group daemon: " in ended.stderr
    assert "Group=daemon in the unit" in ended.stderr
    assert "writable" not in ended.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_group_of_the_user_needs_no_chown(tmp_path: Path) -> None:
    """The sandbox of a unit with Group= rejects chown() even if it would change nothing."""
    chown = "import os, sys, runpy\ndef no(*a, **k): raise PermissionError(1, 'no')\nos.chown = no\n"
    run = f"{chown}sys.argv[0] = 'vhostcomm'\nrunpy.run_module('vhostcomm', run_name='__main__')"
    daemon = Serving("--sock", tmp_path / "nas", "--socket-group", str(os.getegid()), "--control", "none")
    daemon.command = [sys.executable, "-c", run, *daemon.command[len(VHOSTCOMM) :]]
    with daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_error_for_a_lock_of_another_user_names_the_user(tmp_path: Path, mode: int) -> None:
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


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes sockets of others")
def test_error_for_a_socket_of_another_user_names_the_user(tmp_path: Path) -> None:
    """In a folder of all users, a second daemon can't find out whether the first one runs."""
    tmp_path.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "nas"))
        other.listen()
        (tmp_path / "nas").chmod(0o600)
        os.chown(tmp_path / "nas", 65534, 65534)
        ended = powerless("serve", "--sock", tmp_path / "nas", "--control", "none")
    assert ended.returncode == 1, "systemd restarts the daemon after this status"
    assert "Permission denied; it belongs to nobody (uid 65534): run as that user, or choose another" in ended.stderr
    assert (tmp_path / "nas").is_socket()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of others")
def test_error_for_a_folder_of_another_user_names_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    ended = powerless("serve", "--sock", folder / "nas", "--control", "none")
    assert ended.returncode == 78, ended.stderr
    assert f"{folder} must be writable for uid 0, but it belongs to nobody (uid 65534): choose another" in ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of others")
@pytest.mark.parametrize("sock", ["theirs/nas", "theirs/none/nas"])
def test_denied_access_is_one_error_that_ends_with_the_users_own_path(tmp_path: Path, sock: str) -> None:
    """Nothing is logged of watching the directory and reading a debt there, which the same access is needed for."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o710)
    os.chown(folder, 65534, 65534)
    ended = powerless("serve", "--sock", f"nas={tmp_path / sock}", "--control", "none")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert "Permission denied; " in ended.stderr
    assert ended.stderr.endswith(f"; this user can use {runtime_directory()}/nas\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of others")
@pytest.mark.parametrize("own", ["theirs/run", "shared", "file/run", "none/run", "long", "run"])
def test_only_a_usable_path_is_suggested_with_the_guests_name(short_path: Path, own: str) -> None:
    for name, uid, mode in (("theirs", 65534, 0o700), ("shared", 0, 0o770), ("long" + 100 * "g", 0, 0o700)):
        (short_path / name).mkdir()
        (short_path / name).chmod(mode)
        os.chown(short_path / name, uid, uid)
    (short_path / "file").touch()
    runtime = short_path / (own if own != "long" else "long" + 100 * "g")
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(runtime)}
    sock = f"nas={short_path}/theirs/sock"
    ended = powerless("serve", "--sock", sock, "--control", "none", env=environment)
    assert (ended.returncode, "Permission denied; " in ended.stderr) == (78, True), ended.stderr
    suggestion = f"; this user can use {runtime}/nas\n" if own == "run" else "choose another directory\n"
    assert ended.stderr.endswith(suggestion), ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="root is denied nothing")
def test_an_unreadable_directory_that_sockets_can_be_bound_in_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o300)
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    words = [*without, *VHOSTCOMM, "serve", "--sock", str(folder / "nas"), "--control", "none"]
    with started(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        line = json.loads(process.stdout.readline())
        assert line["event"] == "directory can't be watched, deleted sockets go unnoticed"
        assert line["remedy"] == f"uid {os.geteuid()} must be able to read it"
        assert json.loads(process.stdout.readline())["event"] == "serving"


@pytest.mark.parametrize("mode", [0o775, 0o770, 0o777])
def test_runtime_directory_writable_for_others_is_rejected(short_path: Path, mode: int) -> None:
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


@pytest.mark.parametrize("kind", ["file", "link"])
def test_runtime_directory_that_is_no_directory_is_rejected(short_path: Path, kind: str) -> None:
    """The target of a link may change, and may belong to another user."""
    folder, elsewhere = short_path / "run", short_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.touch()
    message = refused("--sock", UUID, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}, status=78)
    assert f"{folder}: not a directory" in message
    assert not any(elsewhere.iterdir())


def test_a_file_in_the_place_of_the_lock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("precious")
    ended = run_vhostcomm("serve", "--sock", tmp_path / "nas")
    assert ended.returncode == 1
    assert "is not a lock" in ended.stderr
    assert (tmp_path / LOCK).read_text() == "precious"


@pytest.mark.slow
def test_a_socket_of_qemu_that_denies_access_is_reported(tmp_path: Path) -> None:
    """The log and the list of guests report it; the daemon connects once the mode is corrected."""
    path = tmp_path / "qemu"
    with socket.socket(socket.AF_UNIX) as qemu:
        qemu.bind(str(path))
        qemu.listen()
        path.chmod(0)
        mere = 'exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"' if os.geteuid() == 0 else ""
        control = tmp_path / "control.sock"
        with Serving("--sock", f"connect:{path}", "--control", control, shell=mere) as daemon:
            assert (
                "give the daemon's user access"
                in daemon.event("QEMU's socket denies access", why="Permission denied")["remedy"]
            )
            listed = run_vhostcomm("guests", "--control", control).stdout
            assert (
                f"QEMU is not connected to connect:{path}: Permission denied; give the daemon's user access" in listed
            )
            path.chmod(0o600)
            daemon.event("guest connected")
            assert "Permission denied" not in run_vhostcomm("guests", "--control", control).stdout
