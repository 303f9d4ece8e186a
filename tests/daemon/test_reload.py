"""SIGHUP: guests added, removed and changed, and nobody else touched."""

from __future__ import annotations

import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path

from tests.serving import PATIENCE, FakeGuest, Serving, fake_guest, until
from vchannel import HostCommand, Request


def write(path: Path, folder: Path, guests: dict[str, str], extra: str = "") -> None:
    path.write_text(
        extra
        + "".join(
            f'[guests.{name}]\nsock = "{folder}/{name}"\nserial = "{serial}"\n' for name, serial in guests.items()
        )
    )


def test_reload(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"stays": "A" * 13, "changes": "B" * 13, "goes": "C" * 13})
    with (
        Serving("--config", path) as daemon,
        fake_guest(tmp_path / "stays") as stays,
        fake_guest(tmp_path / "changes") as changes,
        fake_guest(tmp_path / "goes") as goes,
    ):
        assert (stays.serial(), changes.serial(), goes.serial()) == ("A" * 13, "B" * 13, "C" * 13)
        write(path, tmp_path, {"stays": "A" * 13, "changes": "D" * 13, "comes": "E" * 13})
        daemon.send_signal(signal.SIGHUP)
        told = daemon.event("reloaded")
        assert (told["added"], told["removed"], told["changed"], told["guests"]) == (1, 1, 1, 3)
        assert goes.at_end()
        assert not (tmp_path / "goes").exists()
        # The connections of the others are the same as before.
        assert (stays.serial(), changes.serial()) == ("A" * 13, "D" * 13)
        with fake_guest(tmp_path / "comes") as comes:
            assert comes.serial() == "E" * 13


def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        for bad, why in (("[host", "not TOML"), ('[host]\nserial = "x"\n', "13 letters and digits")):
            path.write_text(bad)
            daemon.send_signal(signal.SIGHUP)
            assert why in daemon.event("not reloaded, the old configuration stays")["why"]
            assert guest.serial() == "A" * 13
        path.unlink()
        daemon.send_signal(signal.SIGHUP)
        assert "No such file" in daemon.event("not reloaded, the old configuration stays")["why"]
        assert guest.serial() == "A" * 13


def test_a_guest_that_cannot_be_added_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        (tmp_path / "bad").write_text("a file")
        write(path, tmp_path, {"nas": "A" * 13, "bad": "B" * 13, "good": "C" * 13})
        daemon.send_signal(signal.SIGHUP)
        assert "a file stands" in daemon.event("guest not served", guest="bad")["why"]
        assert daemon.event("reloaded")["added"] == 1
        assert guest.serial() == "A" * 13
        # Put right, it is taken at the next reload.
        (tmp_path / "bad").unlink()
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["added"] == 1
        with fake_guest(tmp_path / "bad") as late:
            assert late.serial() == "B" * 13


def test_the_host_changes_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"a": "A" * 13, "b": "B" * 13})
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "a") as guest:
        assert guest.ask(HostCommand.HOST_SERIAL) == b"0" * 13 + b"\0"
        write(path, tmp_path, {"a": "A" * 13, "b": "B" * 13}, '[host]\nserial = "HOST567890123"\n')
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["changed"] == 2
        assert guest.ask(HostCommand.HOST_SERIAL) == b"HOST567890123\0"


def test_a_moved_socket(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[guests.nas]\nsock = "{tmp_path}/one"\n')
    with Serving("--config", path) as daemon:
        path.write_text(f'[guests.nas]\nsock = "{tmp_path}/two"\n')
        daemon.send_signal(signal.SIGHUP)
        told = daemon.event("reloaded")
        assert (told["added"], told["removed"]) == (1, 1)
        until(lambda: not (tmp_path / "one").exists(), "the old socket's end")
        with fake_guest(tmp_path / "two") as guest:
            assert guest.serial()


def test_more_guests_than_descriptors(tmp_path: Path) -> None:
    """What can't be served isn't; the others are, and it goes on."""
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path, shell="ulimit -n 30") as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial() == "A" * 13
        write(path, tmp_path, {"nas": "A" * 13} | {f"g{place}": f"{place:013d}" for place in range(1, 21)})
        daemon.send_signal(signal.SIGHUP)
        assert 0 < daemon.event("reloaded")["added"] < 20
        assert guest.serial() == "A" * 13


def test_the_limit_of_descriptors_grows_with_the_guests(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path, shell="ulimit -Sn 64; ulimit -Hn 4096") as daemon:
        write(path, tmp_path, {f"g{place}": f"{place:013d}" for place in range(1, 101)})
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["added"] == 100


def test_what_only_a_start_can_change(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"nas": "A" * 13})
    with Serving("--config", path) as daemon:
        write(path, tmp_path, {"nas": "A" * 13, "new": "B" * 13}, '[serve]\nsocket_mode = "0666"\n')
        for _ in range(2):
            daemon.send_signal(signal.SIGHUP)
            assert (
                daemon.event("this takes effect at the next start; guests and identities do now")["keys"]
                == "socket_mode"
            )
            daemon.event("reloaded")
        assert stat.S_IMODE((tmp_path / "new").lstat().st_mode) == 0o600


def test_a_stop_during_a_reload(tmp_path: Path) -> None:
    """A guest that never reads is being removed, which takes its time; the stop doesn't wait for that."""
    path = tmp_path / "c.toml"
    write(path, tmp_path, {"stuck": "A" * 13, "nas": "B" * 13}, "[serve]\ndrain_timeout = 60\nframe_rate = 0\n")
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "stuck") as stuck:
        stuck.sock.setblocking(False)
        with suppress(BlockingIOError):
            while stuck.sock.send(Request.of(HostCommand.GUEST_SERIAL).raw):
                pass
        write(path, tmp_path, {"nas": "B" * 13}, "[serve]\ndrain_timeout = 60\nframe_rate = 0\n")
        daemon.send_signal(signal.SIGHUP)
        daemon.event("reloading")
        for _ in range(2):
            daemon.send_signal(signal.SIGTERM)
            daemon.event("stopping" if _ == 0 else "not waiting any longer")
        assert daemon.process.wait(PATIENCE) == 0


def test_a_watched_guest_that_is_listed_and_is_not_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = tmp_path / "c.toml"
    path.write_text("")
    listed = f'[guests.nas]\nsock = "connect:{folder}/nas"\nserial = "LISTED7890123"\n'
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "nas"))
        server.listen(1)
        server.settimeout(PATIENCE)
        with Serving("--config", path, "--watch", folder) as daemon:
            sock, _ = server.accept()
            guest = FakeGuest(sock)
            assert guest.serial() == "0" * 13
            for text, serial in ((listed, "LISTED7890123"), ("", "0" * 13)):
                path.write_text(text)
                daemon.send_signal(signal.SIGHUP)
                daemon.event("reloaded")
                if not text:  # taken from the list, and found in the folder
                    assert guest.at_end()
                    sock.close()
                    sock, _ = server.accept()
                    guest = FakeGuest(sock)
                assert guest.serial() == serial
            sock.close()


def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas") as daemon, fake_guest(tmp_path / "nas") as guest:
        daemon.send_signal(signal.SIGHUP)
        daemon.event("nothing to reload: there is no --config file")
        assert guest.serial()
