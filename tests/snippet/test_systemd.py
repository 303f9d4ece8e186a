"""Units of systemd, as they are printed for a guest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import PATIENCE, run_vhostcomm
from tests.snippet.test_snippet import FILE, refused
from vhostcomm import units

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"
PROGRAM = str(Path(sys.executable).with_name("vhostcomm"))


@pytest.mark.parametrize("name", units.NAMES)
def test_what_is_printed_is_a_unit(tmp_path: Path, name: str) -> None:
    """As systemd reads it, beside the others that it speaks of."""
    file = tmp_path / "vhostcomm.toml"
    file.write_text(FILE)
    for each in units.NAMES:
        made = run_vhostcomm("snippet", "systemd", "-c", file, "--guest", "nas", "--unit", each, "--program", PROGRAM)
        assert made.returncode == 0, made.stderr
        (tmp_path / each).write_text(made.stdout)
        if each == name:
            instance = made.stderr.split("enable --now ")[1].splitlines()[0]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / instance)],
        capture_output=True, text=True, timeout=3 * PATIENCE, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert PROGRAM in (tmp_path / name).read_text() or name.endswith(".socket")


def test_which_unit_and_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text(FILE)

    def told(*words: str | Path) -> str:
        made = run_vhostcomm("snippet", "systemd", *words)
        assert made.returncode == 0, made.stderr
        return made.stdout + made.stderr

    of_file = told("-c", file, "--guest", "nas")
    assert f"serve --config {file}\n" in of_file
    assert "enable --now vhostcomm.service\n" in of_file
    assert "ReadWritePaths=/run/guests in a drop-in" in of_file
    of_one = told("--sock", UUID, "--guest-serial", "1234ABC567890")
    assert f"enable --now vhostcomm@{UUID}.service\n" in of_one
    assert f"QEMU connects to /run/vhostcomm-{UUID}/{UUID}; /etc/vhostcomm/{UUID}.env" in of_one
    assert "VHOSTCOMM_GUEST_SERIAL=1234ABC567890" in of_one
    file.write_text('[guests.nas]\nsock = "tcp:127.0.0.1:12345"\n[guests.two]\nsock = "/run/vhostcomm/two"\n')
    assert "PrivateNetwork=no and more in a drop-in" in told("-c", file, "--guest", "nas")
    assert "drop-in" not in told("-c", file, "--guest", "two").splitlines()[-1]


def test_what_has_no_unit() -> None:
    assert "give it with --config" in refused("systemd", "--sock", "nas=/run/nas", "--unit", "vhostcomm.service")
    assert "absolute path" in refused("systemd", "--sock", UUID, "--program", "vhostcomm")
