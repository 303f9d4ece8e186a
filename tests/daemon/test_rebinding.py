"""Socket files that others delete or replace while the daemon runs, and descriptors that run out."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.daemon.test_sockets import UUID
from tests.serving import (
    ENVIRONMENT,
    FakeGuest,
    Serving,
    fake_guest,
    is_listening,
    run_vhostcomm,
    until,
)


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


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """Replace a daemon's socket by one of another process."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{path}-other")
        other.listen()
        Path(f"{path}-other").rename(path)
        yield


def test_socket_replaced_by_another_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path) as daemon, replacing(path):
        lost = daemon.event("socket file deleted or replaced, QEMU can't connect", guest="guest")
        assert "another process already listens there" in lost["why"]
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
        for _ in range(2):  # before the first client, and after
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
        assert "a file is in the place of the socket" in lost["why"]
    assert control.read_text() == "precious"


@pytest.mark.slow
def test_sockets_in_a_deleted_folder_are_bound_again(short_path: Path) -> None:
    """The daemon makes the runtime directory again, and waits for any other folder."""
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
    """A connection that is retried until it is accepted, as QEMU does."""
    made = socket.socket(socket.AF_UNIX)
    until(lambda: made.connect_ex(str(path)) == 0, "the connection")
    return made


@pytest.mark.slow
def test_last_descriptors_go_to_connections(tmp_path: Path) -> None:
    """There is one descriptor less than two for each guest. All guests are served, and listen again afterwards."""
    paths = [tmp_path / f"g{place}" for place in range(40)]
    words = [word for path in paths for word in ("--sock", path)]
    with Serving(*words) as daemon:
        until(lambda: all(map(is_listening, paths)), "all sockets")
        alone = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) - len(paths)
    with Serving(*words, shell=f"ulimit -n {alone + 2 * len(paths) - 1}") as daemon:
        for _ in range(2):
            with ExitStack() as stack:
                guests = [FakeGuest(stack.enter_context(retrying(path))) for path in paths]
                assert all(guest.serial() for guest in guests)
            for _ in paths:
                daemon.event("guest gone")


def test_socket_of_another_process_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "guest"
    with Serving("--sock", path) as daemon, replacing(path):
        daemon.event("socket file deleted or replaced, QEMU can't connect")
    assert path.exists()
