"""Each flag has one documented name; names of other tools, and our older names, work too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving import Serving, run_vhostcomm
from vchannel import GuestCommand
from vhostcomm.cli.flags import given
from vhostcomm.errors import UsageError

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"


def test_probe_takes_the_socket_by_its_place_and_as_a_flag(tmp_path: Path) -> None:
    sock = tmp_path / "nas"
    with Serving("--sock", sock, "--control", "none", "--guest-serial", "1234ABC567890"):
        for words in ([sock], ["--sock", sock]):
            done = run_vhostcomm("probe", *words)
            assert (done.returncode, "1234ABC567890" in done.stdout) == (0, True), done.stderr
    twice = run_vhostcomm("probe", sock, "--sock", sock)
    assert (twice.returncode, "given twice" in twice.stderr) == (2, True)


def test_help_of_call_lists_every_command_and_which_are_dangerous() -> None:
    listed = run_vhostcomm("call", "--help").stdout
    for command in GuestCommand:
        shown = f" {int(command)} {command.name.lower()}"
        assert f"{shown} !" in listed if command.dangerous else f"{shown} !" not in listed
        assert shown in listed


def test_config_validate_reports_the_errors_of_serve(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[guests.nas]\nsock = "/tmp/nas"\n')
    for words in ([file], ["--config", file]):
        done = run_vhostcomm("config", "validate", *words)
        assert (done.returncode, done.stdout) == (0, f"{file}: valid; guests: nas\n"), done.stderr
    file.write_text('[guests.nas]\nsok = "/tmp/nas"\n')
    done, served = run_vhostcomm("config", "validate", file), run_vhostcomm("serve", "--config", file)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", served.stderr)
    file.write_text("")
    assert "no guest to serve" in run_vhostcomm("config", "validate", file).stderr


@pytest.mark.needs("qemu-system-x86_64")
def test_older_names_of_flags_do_the_same(tmp_path: Path) -> None:
    words: list[str | Path] = [
        "run",
        "--direct-kernel",
        "/dev/null",
        "--accel",
        "tcg",
        "--sock",
        tmp_path / "s",
        "--dry-run",
    ]
    new = run_vhostcomm(*words, "--guest-uuid", UUID, "--vcpus", "2", "--guest", "nas")
    old = run_vhostcomm(*words, "--uuid", UUID, "--cpus", "2", "--name", "nas")
    assert (new.returncode, new.stdout) == (0, old.stdout), new.stderr + old.stderr
    assert UUID in new.stdout
    assert "-name guest=nas " in new.stdout
    shown = run_vhostcomm("run", "--help").stdout
    assert all(f" {each} " in shown for each in ("--guest-uuid", "--vcpus", "--guest"))
    assert not any(f" {each} " in shown for each in ("--uuid", "--cpus", "--name"))
    both = run_vhostcomm(*words, "--guest", "nas", "--name", "nas")
    assert (both.returncode, "--name is an older name of --guest" in both.stderr) == (2, True)


def test_v_and_q_are_levels_of_the_log() -> None:
    assert given(verbose=True) == {"log-level": "debug"}
    assert given(quiet=True) == {"log-level": "warning"}
    with pytest.raises(UsageError, match="--verbose and --quiet"):
        given(verbose=True, quiet=True)


def test_quiet_and_log_level_exclude_each_other(tmp_path: Path) -> None:
    done = run_vhostcomm("serve", "-q", "--log-level", "debug", "--sock", tmp_path / "nas")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--log-level and --quiet set different levels of the log" in done.stderr
