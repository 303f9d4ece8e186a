"""Errors of a unit's process that can't start, and whether systemd tries again."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, Serving, run_vhostcomm
from tests.systemd.test_units import drop_ins
from vhostcomm.systemd import units

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"
ROOT = Path(__file__).parents[2]


def prevented(name: str) -> set[int]:
    """The statuses after which systemd doesn't start a unit again."""
    (line,) = re.findall(r"^RestartPreventExitStatus=(.*)$", units.text(name), re.MULTILINE)
    return {int(each) for each in line.split()}


def refused(*words: str | Path, **environment: str) -> tuple[int, str]:
    """The exit status and the output of a `serve` that doesn't start. It has the rights of a service's user."""
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*powerless, *VHOSTCOMM, "serve", *map(str, words)],
        env=ENVIRONMENT | environment, timeout=TIMEOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.slow
def test_an_unreadable_file_is_not_retried(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[guests.nas]\n")
    config.chmod(0)
    status, said = refused("--config", config)
    assert status in prevented(units.SERVE)
    assert said.count("\n") == 1
    assert f"{config}: Permission denied; uid {os.geteuid()} must be able to read it: chmod a+r" in said


@pytest.mark.slow
def test_a_missing_file_is_not_retried(tmp_path: Path) -> None:
    status, said = refused("--config", tmp_path / "c.toml")
    assert status in prevented(units.SERVE)
    assert said.count("\n") == 1
    assert f"vhostcomm config init {tmp_path}/c.toml" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ('sock = "{0}/none/nas"', "make its directory: install -d -m 0700 {0}/none"),
        ('sock = "{0}/closed/nas"', "{0}/closed must be writable for uid"),
        ('sock = "{0}/file/nas"', "Not a directory"),
        ('serial = "1"', "letters and digits"),
    ],
)
def test_mistakes_in_the_file_are_not_retried(tmp_path: Path, setting: str, remedy: str) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "file").touch()
    config = tmp_path / "c.toml"
    config.write_text(f"[guests.nas]\n{setting.format(tmp_path)}\n[serve]\ncontrol = 'none'\n")
    status, said = refused("--config", config)
    assert status in prevented(units.SERVE), said
    assert said.count("\n") == 1
    assert remedy.format(tmp_path) in said


@pytest.mark.slow
def test_a_missing_group_is_not_retried(tmp_path: Path) -> None:
    status, said = refused("--sock", tmp_path / "nas", "--socket-group", "nobody-has-this", "--control", "none")
    assert status in prevented(units.SERVE)
    assert "there is no group 'nobody-has-this'" in said


@pytest.mark.slow
def test_a_runtime_directory_that_cannot_be_made_is_not_retried(short_path: Path) -> None:
    status, said = refused("--sock", UUID, RUNTIME_DIRECTORY=str(short_path / "none/x"))
    assert status in prevented(units.SERVE_ONE)
    assert said.count("\n") == 1
    assert f"install -d -m 0700 {short_path}/none" in said


@pytest.mark.slow
def test_a_missing_folder_of_the_control_surface_is_not_retried(tmp_path: Path) -> None:
    status, said = refused("--sock", tmp_path / "nas", "--control", tmp_path / "none/control")
    assert status in prevented(units.SERVE)
    assert "the control surface: " in said
    assert not (tmp_path / "nas").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--sock", "nas=tcp:127.0.0.1:0", "--control", "none"),
        ("--sock", "nas=tcp:[::1]:0", "--control", "none"),
        ("--sock", "nas=./nas", "--control", "tcp:127.0.0.1:0"),
        ("--sock", "nas=./nas", "--control", "none", "--qemu-host-api", "127.0.0.1:0"),
    ],
)
def test_tcp_without_the_drop_in_is_not_retried(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A filter like the RestrictAddressFamilies= of the units makes it fail here."""
    number = {"x86_64": 41, "aarch64": 198}.get(os.uname().machine)
    if number is None:
        pytest.skip(f"the number of socket() on {os.uname().machine} is not known here")
    deny = [sys.executable, "-m", "tests.deny", f"{number}:{int(socket.AF_INET)}", str(errno.EAFNOSUPPORT)]
    command = [*deny, "sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path), *VHOSTCOMM, "serve", *words]
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": "a-long-random-secret"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, timeout=TIMEOUT, capture_output=True, text=True, check=False
    )
    assert ended.returncode in prevented(units.SERVE) & prevented(units.SERVE_ONE), ended.stderr
    assert ended.stderr.count("\n") == 1
    for line in drop_in_for_tcp():
        assert line in ended.stderr


def drop_in_for_tcp() -> list[str]:
    """The lines of the documentation's drop-in."""
    (text,) = [text for _, text in drop_ins() if text.endswith("\nIPAddressAllow=localhost\n")]
    return text.removeprefix("[Service]\n").splitlines()


@pytest.mark.parametrize("name", [units.SERVE, units.SERVE_ONE, units.RUN])
def test_errors_of_systemd_itself_are_not_retried(name: str) -> None:
    """EXIT_EXEC, EXIT_GROUP, EXIT_USER and EXIT_NAMESPACE of systemd.exec(5)."""
    assert {203, 216, 217, 226} <= prevented(name)


@pytest.mark.slow
def test_a_launcher_without_its_file_is_not_retried(tmp_path: Path) -> None:
    """The unit's EnvironmentFile= may be missing. Then $RUN is empty, and the launcher reports what it needs."""
    assert "EnvironmentFile=-/etc/vhostcomm/run-%i.env\n" in units.text(units.RUN)
    (line,) = re.findall(r"^ExecStart=/usr/bin/vhostcomm (.*) \$RUN$", units.text(units.RUN), re.MULTILINE)
    ended = run_vhostcomm(*line.replace("%i", "nas").split(), env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)})
    assert ended.returncode in prevented(units.RUN)
    assert "--boot" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_socket_of_another_daemon_is_retried(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--control", "none"):
        status, said = refused("--sock", tmp_path / "nas", "--control", "none")
    assert status == 1
    assert status not in prevented(units.SERVE) | prevented(units.SERVE_ONE) | prevented(units.RUN)
    assert "another process already serves it" in said
