"""Folders in which guests appear and vanish."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.serving import TIMEOUT, FakeGuest, Serving, fake_guest
from vchannel import HostCommand
from vhostcomm.config.identity import derived_uuid

ZERO = "0" * 13


def test_guests_follow_the_sockets_of_a_watched_folder(short_path: Path) -> None:
    uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    (short_path / "a file").write_text("")
    with Serving("--watch", short_path) as daemon:
        for name in (uuid, "nas", uuid):
            path = short_path / name
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.bind(str(path))
                server.listen(1)
                server.settimeout(TIMEOUT)
                sock, _ = server.accept()
                with sock:
                    expected = uuid if name == uuid else derived_uuid("g", ZERO)
                    assert FakeGuest(sock).ask(HostCommand.GUEST_UUID) == expected.encode() + b"\0"
                    path.unlink()
                    assert FakeGuest(sock).at_end()
            daemon.event("guest gone", guest=name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(short_path / "not a name"))
            assert "a name has" in daemon.event("socket ignored")["why"]


def test_a_watched_folder_that_vanishes_takes_only_its_own_guests(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with (
        Serving("--watch", folder, "--sock", tmp_path / "other") as daemon,
        fake_guest(tmp_path / "other") as other,
        socket.socket(socket.AF_UNIX) as server,
    ):
        server.bind(str(folder / "nas"))
        server.listen(1)
        server.settimeout(TIMEOUT)
        sock, _ = server.accept()
        with sock:
            (folder / "nas").rename(tmp_path / "nas")
            assert FakeGuest(sock).at_end()
        folder.rmdir()
        daemon.event("watched directory lost, with its guests; retrying")
        assert other.serial() == ZERO


def test_own_sockets_in_a_watched_folder_are_no_new_guests(tmp_path: Path) -> None:
    with Serving("--watch", tmp_path, "--sock", tmp_path / "nas") as daemon:
        (tmp_path / "touch").write_text("")
        with fake_guest(tmp_path / "nas") as guest:
            assert guest.serial() == ZERO
    assert not [line for line in daemon.log if line["event"] in {"connection refused", "socket ignored"}]
