"""SIGHUP: guests added, removed and changed, and nobody else touched."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.serving import Serving, fake_guest, until
from vchannel import HostCommand


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


def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas") as daemon, fake_guest(tmp_path / "nas") as guest:
        daemon.send_signal(signal.SIGHUP)
        daemon.event("nothing to reload: there is no --config file")
        assert guest.serial()
