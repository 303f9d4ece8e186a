"""Guests and their sockets across a reload: added, moved, watched, with other QMP sockets."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.control.controlled import client, post
from tests.daemon.test_reload import write
from tests.qemu.peers import GREETING
from tests.serving import TIMEOUT, FakeGuest, Serving, fake_guest, until


@pytest.mark.slow
def test_a_moved_socket_is_bound_at_its_new_path(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[guests.nas]\nsock = "{tmp_path}/one"\n')
    with Serving("--config", path) as daemon:
        path.write_text(f'[guests.nas]\nsock = "{tmp_path}/two"\n')
        daemon.send_signal(signal.SIGHUP)
        event = daemon.event("reloaded")
        assert (event["added"], event["removed"]) == (1, 1)
        until(lambda: not (tmp_path / "one").exists(), "the old socket's end")
        with fake_guest(tmp_path / "two") as guest:
            assert guest.serial()


@pytest.mark.parametrize("taken", [True, False])
def test_a_guest_keeps_its_old_socket_until_the_new_one_is_bound(tmp_path: Path, taken: bool) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[guests.nas]\nsock = "{tmp_path}/one"\n')
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "one") as guest:
        assert guest.serial()
        path.write_text(f'[guests.nas]\nsock = "{tmp_path}/two"\n')
        if taken:
            (tmp_path / "two").mkdir()
        daemon.send_signal(signal.SIGHUP)
        if not taken:
            assert daemon.event("reloaded")
            assert guest.at_end()
            return
        daemon.event("reload rejected, the old configuration stays")
        assert guest.serial()


def test_sockets_that_change_guests_listen_all_the_time(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        f'[guests.a]\nsock = "{tmp_path}/one"\nserial = "{"A" * 13}"\n'
        f'[guests.b]\nsock = "{tmp_path}/two"\nserial = "{"B" * 13}"\n'
    )
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "one") as before:
        assert before.serial() == "A" * 13
        inodes = [(tmp_path / name).stat().st_ino for name in ("one", "two")]
        path.write_text(
            f'[guests.b]\nsock = "{tmp_path}/one"\nserial = "{"B" * 13}"\n'
            f'[guests.a]\nsock = "{tmp_path}/two"\nserial = "{"A" * 13}"\n'
        )
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["guests"] == 2
        assert before.at_end()
        assert [(tmp_path / name).stat().st_ino for name in ("one", "two")] == inodes
        with fake_guest(tmp_path / "one") as one, fake_guest(tmp_path / "two") as two:
            assert (one.serial(), two.serial()) == ("B" * 13, "A" * 13)


@pytest.mark.slow
def test_a_reload_with_more_guests_than_descriptors_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path, shell="ulimit -n 30") as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial() == "A" * 13
        write(path, tmp_path, {"nas": "A" * 13} | {f"g{place}": f"{place:013d}" for place in range(1, 31)})
        daemon.send_signal(signal.SIGHUP)
        assert "Too many open files" in daemon.event("reload rejected, the old configuration stays")["why"]
        assert guest.serial() == "A" * 13
        assert not (tmp_path / "g1").exists()


@pytest.mark.slow
def test_the_limit_of_descriptors_grows_with_the_guests(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path, shell="ulimit -Sn 64; ulimit -Hn 4096") as daemon:
        write(path, tmp_path, {f"g{place}": f"{place:013d}" for place in range(1, 101)})
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["added"] == 100


def test_a_watched_guest_is_added_to_the_file_and_removed_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = tmp_path / "c.toml"
    path.write_text("")
    listed = f'[guests.nas]\nsock = "connect:{folder}/nas"\nserial = "LISTED7890123"\n'
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "nas"))
        server.listen(1)
        server.settimeout(TIMEOUT)
        with Serving("--config", path, "--watch", folder) as daemon:
            sock, _ = server.accept()
            guest = FakeGuest(sock)
            assert guest.serial() == "0" * 13
            for text, serial in ((listed, "LISTED7890123"), ("", "0" * 13)):
                path.write_text(text)
                daemon.send_signal(signal.SIGHUP)
                daemon.event("reloaded")
                if not text:  # removed from the file, and found in the folder
                    assert guest.at_end()
                    sock.close()
                    sock, _ = server.accept()
                    guest = FakeGuest(sock)
                assert guest.serial() == serial
            sock.close()


@contextmanager
def paused_qemu(place: Path) -> Iterator[threading.Event]:
    """A QMP socket for one client, of a paused machine. The event is set when the client has disconnected."""
    gone = threading.Event()

    def serve() -> None:
        sock, _ = server.accept()
        with suppress(ConnectionError), sock, sock.makefile("rw") as stream:  # a client may leave with answers unread
            print(json.dumps(GREETING), file=stream, flush=True)
            for line in stream:
                asked = json.loads(line)
                answer = {"running": False, "status": "paused"} if asked["execute"] == "query-status" else {}
                print(json.dumps({"return": answer, "id": asked["id"]}), file=stream, flush=True)
        gone.set()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        server.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve)
        thread.start()
        yield gone
        thread.join(TIMEOUT)


def test_a_qmp_socket_is_added_changed_and_removed(tmp_path: Path) -> None:
    """The guest stays connected, and the pause that QMP reported is forgotten with the QMP socket."""
    path, sock, places = tmp_path / "c.toml", tmp_path / "nas", [tmp_path / "one", tmp_path / "two"]
    listed = f'[guests.nas]\nsock = "{sock}"\n'
    path.write_text(listed)
    with (
        paused_qemu(places[0]) as first,
        paused_qemu(places[1]) as second,
        Serving("--config", path, "--control", tmp_path / "control") as daemon,
        client(tmp_path / "control") as http,
        fake_guest(sock) as guest,
    ):
        guest.serial()
        for place in places:
            path.write_text(f'{listed}qmp = "{place}"\n')
            assert post(http, "/reload")[0] == 200
            daemon.event("QMP connected", path=str(place))
            daemon.event("guest paused")
            assert http.get("/guests/nas").json()["state"] == "paused"
            assert second.is_set() is False
        assert first.wait(TIMEOUT)
        path.write_text(listed)
        assert post(http, "/reload")[0] == 200
        assert second.wait(TIMEOUT)
        assert http.get("/guests/nas").json()["state"] == "ready"
        status, refused = post(http, "/guests/nas/resume")
        assert (status, refused["error"]["what"]) == (409, "no QMP socket")
        assert guest.serial()
