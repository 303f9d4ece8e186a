"""A file system that hangs holds up the guests on it, and no others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.hanging import Hanging
from tests.serving import FakeGuest, Serving, fake_guest

FINE = "A" * 13


def guests(folder: Path, more: str) -> str:
    return f'[guests.nas]\nsock = "{folder}/nas"\nserial = "{FINE}"\n{more}'


def answered(nas: FakeGuest) -> bool:
    return nas.serial() == FINE


@pytest.mark.parametrize(
    "more",
    ['[guests.bad]\nsock = "connect:{place}/qemu"\n', 'qmp = "{place}/qmp"\n'],
    ids=["QEMU's socket", "QMP's socket"],
)
def test_what_we_connect_to(tmp_path: Path, more: str) -> None:
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, more.format(place=place)))
    with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
        hanging.asked()
        assert answered(nas)
        assert daemon.stop() == 0


def test_a_socket_of_ours(tmp_path: Path) -> None:
    """Its file is deleted while the file system hangs, and then the guest is taken out of the configuration."""
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, f'[guests.bad]\nsock = "{place}/bad"\n'))
    below = os.open(place, os.O_RDONLY)
    try:
        with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
            os.unlink("bad", dir_fd=below)
            hanging.asked()
            assert answered(nas)
            config.write_text(guests(tmp_path, ""))
            daemon.send_signal(signal.SIGHUP)
            assert daemon.event("reloaded")["removed"] == 1
            assert answered(nas)
            config.write_text(guests(tmp_path, f'[guests.other]\nsock = "{tmp_path}/other"\n'))
            daemon.send_signal(signal.SIGHUP)
            assert daemon.event("reloaded")["added"] == 1
            with fake_guest(tmp_path / "other") as other:
                assert other.serial()
            assert daemon.stop() == 0
    finally:
        os.close(below)


def test_a_new_guest(tmp_path: Path) -> None:
    """A record of its freeze is looked for before its socket is made."""
    place, config = tmp_path / "place", tmp_path / "c.toml"
    place.mkdir()
    config.write_text(guests(tmp_path, ""))
    with Serving("--config", config) as daemon, fake_guest(tmp_path / "nas") as nas, Hanging(place) as hanging:
        config.write_text(guests(tmp_path, f'[guests.bad]\nsock = "{place}/bad"\n'))
        daemon.send_signal(signal.SIGHUP)
        hanging.asked()
        assert answered(nas)
        assert daemon.stop() == 0
