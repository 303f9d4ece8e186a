"""`--sock`, and sockets that systemd passes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.test_load import RUNTIME, config
from tests.serving import ENVIRONMENT, TIMEOUT
from vhostcomm.config.address import Activated, Sock
from vhostcomm.config.load import load
from vhostcomm.errors import ConfigError


def test_activated_socket_without_a_guest_in_the_file_is_served(tmp_path: Path) -> None:
    """The guest is served, because QEMU is already connected. Without a file, there is no warning."""
    handed = [Sock("nsa", Activated(3, "/run/nsa"))]
    loaded = load(config(tmp_path, "[guests.nas]\n[guests.two]\n"), activated=handed, environment=RUNTIME)
    assert {each.name for each in loaded.guests} == {"nas", "two", "nsa"}
    (warning,) = (each for each in loaded.warnings if "systemd has passed" in each)
    assert "for 'nsa', but the file has no such guest, only nas and two: " in warning
    assert "or add [guests.nsa] to the file" in warning
    assert not any("systemd has passed" in each for each in load(activated=handed, environment={}).warnings)
    alone = load(config(tmp_path, ""), activated=handed, environment={}).warnings
    assert ["no such guest: it gets" in each for each in alone] == [True]
    right = load(config(tmp_path, "[guests.nsa]\n"), activated=handed, environment=RUNTIME)
    assert not right.warnings


def test_two_activated_sockets_of_one_name() -> None:
    handed = [Sock("nas", Activated(3, "/x/one")), Sock("nas", Activated(4, "/x/two"))]
    with pytest.raises(
        ConfigError, match="/x/one and /x/two are both for a guest 'nas': set a different FileDescriptorName="
    ):
        load(activated=handed, environment={})
    with pytest.raises(ConfigError, match="FileDescriptorName="):
        load(socks=["/y/nas"], activated=handed, environment={})


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS in the environment is 'x', but must be a number"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS in the environment is '-1', but must be a number"),
        ({"LISTEN_FDS": "1"}, "file descriptor 3 from systemd is not a listening stream socket"),
        ({"LISTEN_FDS": "2"}, "file descriptor 4 from systemd can't be used: Bad file descriptor"),
    ],
)
@pytest.mark.slow
def test_passed_descriptors_that_are_not_sockets_are_rejected(tmp_path: Path, facts: dict[str, str], what: str) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "nas"))
        listening.listen()
        redirected = "3<file" if facts["LISTEN_FDS"] == "1" else f"3<&{listening.fileno()} 4<&-"
        words = f"""exec {redirected}; LISTEN_PID=$$ exec "{sys.executable}" -m vhostcomm serve"""
        ended = subprocess.run(
            ["bash", "-c", words], cwd=tmp_path, env=ENVIRONMENT | facts, pass_fds=[listening.fileno()],
            capture_output=True, text=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip
    assert ended.returncode == 2
    assert what in ended.stderr
    assert "Traceback" not in ended.stderr
