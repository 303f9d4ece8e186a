"""Several files, and folders of files: a later file overrides an earlier one, key by key."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from tests.serving import Serving, fake_guest, run_vhostcomm
from vhostcomm.config import files
from vhostcomm.config.load import load
from vhostcomm.config.models import effective
from vhostcomm.errors import ConfigError

RUNTIME = {"RUNTIME_DIRECTORY": "/run/vhostcomm"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_later_file_overrides_key_by_key(tmp_path: Path) -> None:
    common = write(
        tmp_path / "common.toml",
        '[host]\nserial = "AAAAAAAAAAAA1"\nmodel = "common"\n[guest]\nvcpus = 2\n[serve]\nwatch = ["/a"]\nframe_rate = 5\n'
        '[guests.nas]\nserial = "AAAAAAAAAAAA2"\nsock = "/x/nas"\nqmp = "/x/qmp"\n[guests.attic]\nsock = "/x/attic"\n',
    )
    own = write(
        tmp_path / "own.toml",
        '[host]\nserial = "BBBBBBBBBBBB1"\n[serve]\nwatch = ["/b"]\n[guests.nas]\nsock = "/y/nas"\n[guests.third]\n',
    )
    loaded = load([common, own], environment=RUNTIME)
    assert (loaded.host.serial, loaded.host.model, loaded.service.frame_rate) == ("BBBBBBBBBBBB1", "common", 5)
    assert loaded.watch == (Path("/b"),)
    shown = effective(loaded)
    assert [name for name in shown if name.startswith("guests.")] == ["guests.nas", "guests.attic", "guests.third"]
    assert {key: (each["value"], each["source"]) for key, each in shown["guests.nas"].items() if key != "uuid"} == {
        "sock": ("/y/nas", f"{own}: guests.nas.sock"),
        "qmp": ("/x/qmp", f"{common}: guests.nas.qmp"),
        "serial": ("AAAAAAAAAAAA2", f"{common}: guests.nas.serial"),
        "vcpus": (2, f"{common}: guest.vcpus"),
        "cpu": ("QEMU, Virtual CPU, X86_64", "default"),
        "update_deadline": (loaded.guests[0].identity.update_deadline, "default"),
    }
    assert shown["guests.third"]["sock"] == {"value": "/run/vhostcomm/third", "source": "default"}
    # In the opposite order, the other file overrides.
    assert load([own, common], environment=RUNTIME).host.serial == "AAAAAAAAAAAA1"


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    for name, serial in (("10-a.toml", "A"), ("9-b.toml", "B"), (".hidden.toml", "C"), ("nas.toml~", "D"), ("x", "E")):
        write(folder / name, f'[guests.nas]\nserial = "{serial * 13}"\n')
    (guest,) = load(folder, environment=RUNTIME).guests
    assert (guest.identity.serial, guest.sources["serial"]) == ("B" * 13, f"{folder}/9-b.toml: guests.nas.serial")
    last = write(tmp_path / "last.toml", '[guests.nas]\nserial = "FFFFFFFFFFFFF"\n')
    assert load([folder, last], environment=RUNTIME).guests[0].identity.serial == "F" * 13


def test_paths_of_disks_are_relative_to_their_file(tmp_path: Path) -> None:
    one = write(tmp_path / "one" / "a.toml", '[guests.nas.machine]\nboot = "boot.img"\ndata = ["d.img", "naa.5"]\n')
    two = write(tmp_path / "two" / "b.toml", '[guests.nas.machine]\nsystem = "system.img"\n')
    machine = load([one, two], environment=RUNTIME).guests[0].machine
    assert (machine.boot, machine.system) == (f"{one.parent}/boot.img", f"{two.parent}/system.img")
    assert machine.data == (f"{one.parent}/d.img", "naa.5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host", r"conf.d/b.toml: not TOML: Expected"),
        ('[host]\nserial = "x"', r"conf.d/b.toml: host.serial is 'x': a serial number has 13"),
        ("[guests.nas]\nsocks = 1", r"conf.d/b.toml: guests.nas.socks: unknown; did you mean sock\?"),
        ("[guest.nas]", r"conf.d/b.toml: guest.nas: unknown"),
        ("[hosts]", r"conf.d/b.toml: unknown: 'hosts'"),
        ('[guests.b]\nsock = "/x/nas"', r"conf.d/b.toml: guests.b: guest 'nas' already has the socket /x/nas"),
    ],
)
def test_error_names_the_file_with_the_mistake(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "conf.d" / "a.toml", '[guests.nas]\nsock = "/x/nas"\n')
    write(tmp_path / "conf.d" / "b.toml", text)
    write(tmp_path / "conf.d" / "c.toml", '[host]\nserial = "CCCCCCCCCCCCC"\n')  # does not override the mistake
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "conf.d", environment=RUNTIME)


def test_a_folder_without_files_may_not_be_mounted(tmp_path: Path) -> None:
    write(tmp_path / "conf.d" / ".only-hidden.toml", "")
    with pytest.raises(ConfigError, match=r"conf.d: a directory without a \*.toml file; check that its file system is"):
        load(tmp_path / "conf.d", environment=RUNTIME)
    with pytest.raises(ConfigError, match="away: No such file or directory"):
        load(tmp_path / "away", environment=RUNTIME)


def test_file_deleted_after_the_listing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an unmount, all of a folder's files are missing. A reload that ignored them would remove their guests."""
    stays = write(tmp_path / "conf.d" / "a.toml", "[guests.a]\n")
    listed = files.list_files
    monkeypatch.setattr(files, "list_files", lambda paths: [*listed(paths), tmp_path / "conf.d" / "gone.toml"])
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load(stays.parent, environment=RUNTIME)


def test_a_folder_that_may_be_listed_and_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable files are an error, not an empty configuration."""
    folder = write(tmp_path / "conf.d" / "a.toml", "[guests.a]\n").parent

    def content(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("vhostcomm.config.reading.content", content)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(ConfigError, match=r"a\.toml: Permission denied"):
        load(folder, environment=RUNTIME)


@pytest.mark.slow
def test_every_verb_reads_all_of_them(tmp_path: Path) -> None:
    common = write(tmp_path / "common.toml", f'[guests.nas]\nsock = "{tmp_path}/nas"\nserial = "AAAAAAAAAAAAA"\n')
    own = write(tmp_path / "conf.d" / "own.toml", '[host]\nserial = "BBBBBBBBBBBBB"\n[serve]\nwatch = ["/b"]\n')
    valid = run_vhostcomm("config", "validate", common, own.parent)
    assert valid.stdout == f"{common} and {own.parent}: valid; guests: nas; watched: /b\n"
    words: list[str | Path] = ["--config", common, "--config", own.parent]
    assert run_vhostcomm("config", "validate", *words).stdout == valid.stdout
    shown = json.loads(run_vhostcomm("config", "show", *words, "--json").stdout)
    assert shown["host"]["serial"] == {"value": "B" * 13, "source": f"{own}: host.serial"}
    assert shown["guests.nas"]["sock"] == {"value": f"{tmp_path}/nas", "source": f"{common}: guests.nas.sock"}
    assert (shown["watch"], shown["watch_sources"]) == (["/b"], [f"{own}: serve.watch"])
    assert f"watch  /b  {own}: serve.watch\n" in run_vhostcomm("config", "show", *words).stdout
    own.write_text("[hots]\n")
    invalid = run_vhostcomm("config", "validate", *words)
    assert (invalid.returncode, f"{own}: unknown: 'hots'" in invalid.stderr) == (2, True)


def test_a_reload_reads_all_of_them(tmp_path: Path) -> None:
    common = write(tmp_path / "common.toml", f'[guests.nas]\nsock = "{tmp_path}/nas"\nserial = "AAAAAAAAAAAAA"\n')
    own = write(tmp_path / "conf.d" / "own.toml", "")
    with Serving("--config", common, "--config", own.parent) as daemon, fake_guest(tmp_path / "nas") as guest:
        assert guest.serial() == "A" * 13
        write(own.parent / "second.toml", '[guests.nas]\nserial = "BBBBBBBBBBBBB"\n')
        daemon.send_signal(signal.SIGHUP)
        assert daemon.event("reloaded")["changed"] == 1
        assert guest.serial() == "B" * 13
        # As without a quorum, or unmounted, the configuration stays.
        own.parent.rename(tmp_path / "away")
        daemon.send_signal(signal.SIGHUP)
        why = daemon.event("reload rejected, the old configuration stays")["why"]
        assert f"{own.parent}: No such file" in why
        assert guest.serial() == "B" * 13
