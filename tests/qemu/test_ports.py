"""Ports that QEMU can't bind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.launched import ROOT
from tests.serving import ENVIRONMENT, TIMEOUT, held_port, run_vhostcomm
from vhostcomm.errors import QemuError
from vhostcomm.qemu.machine import Forward, PasstNet, UserNet
from vhostcomm.qemu.ports import port_problem


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def test_port_in_use_is_named_with_the_way_to_find_its_user(taken: int) -> None:
    assert port_problem(UserNet((Forward(taken, 5000),))) == (
        f"--forward: tcp port {taken} of 127.0.0.1 is in use; `ss -ltnp 'sport = :{taken}'` shows by what; "
        "or forward another port"
    )


def test_udp_port_is_another_than_a_tcp_port(taken: int) -> None:
    assert port_problem(UserNet((Forward(taken, 5000, "udp"),))) == ""


def test_address_of_another_machine() -> None:
    assert "no such address" in port_problem(UserNet((Forward(50_000, 5000, host_address="192.0.2.1"),)))


@pytest.mark.parametrize("net", [UserNet, PasstNet])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_is_forwarded_twice(net: type[UserNet | PasstNet], address: str) -> None:
    others = Forward(5000, 5001, "udp"), Forward(5001, 5001), Forward(5000, 5001, host_address="127.0.0.2")
    net((Forward(5000, 5000), *others))
    with pytest.raises(QemuError, match=f"tcp port 5000 of {address} leads to the guest's ports 5000 and 80; forward"):
        net((Forward(5000, 5000), Forward(5000, 80, host_address=address)))


def test_port_that_is_forwarded_twice_is_reported_without_qemu(tmp_path: Path) -> None:
    refused = run_vhostcomm("run", "--boot", disk(tmp_path), "--dry-run", "--forward=5000:80", "--forward=5000:81")
    assert refused.returncode == 2
    assert "tcp port 5000 of 127.0.0.1 leads to the guest's ports 80 and 81" in refused.stderr


def test_no_port_is_forwarded() -> None:
    assert port_problem(UserNet()) == port_problem(None) == ""


@pytest.mark.needs("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="root may use privileged ports, and become a user who may not")
def test_privileged_port_needs_a_right() -> None:
    script = (
        "from vhostcomm.qemu.machine import Forward, UserNet\nfrom vhostcomm.qemu.ports import port_problem\n"
        "print(port_problem(UserNet((Forward(81, 5000),))))"
    )
    words = ["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-all"]
    done = subprocess.run(
        [*words, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "tcp port 81 of 127.0.0.1 needs root; forward a port from 1024 on" in done.stdout


def disk(folder: Path) -> str:
    path = folder / "boot.img"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return str(path)


def words(folder: Path, port: int) -> list[str]:
    return [
        "run", "--boot", disk(folder), "--accel", "tcg", "--sock", str(folder / "nas"), "--serial-console", "none",
        "--control", "none", "--forward", f"{port}:5000",
    ]  # fmt: skip


@pytest.mark.needs("qemu-system-x86_64")
def test_run_reports_ports_before_qemu_starts(taken: int, tmp_path: Path) -> None:
    ended = run_vhostcomm(*words(tmp_path, taken), timeout=60)
    assert ended.returncode == 1
    assert f"tcp port {taken} of 127.0.0.1 is in use" in ended.stderr
    assert "QEMU runs" not in ended.stderr


@pytest.mark.needs("qemu-system-x86_64")
def test_port_that_is_bound_meanwhile_is_named_too(tmp_path: Path) -> None:
    """QEMU's start script binds the port after vhostcomm has checked it."""
    holder = tmp_path / "holder"
    start = tmp_path / "qemu"
    with held_port() as port:
        ended = _run_with_a_port_taken_meanwhile(tmp_path, start, holder, port)
    assert ended.returncode == 3
    assert f"tcp port {port} of 127.0.0.1 is in use; `ss -ltnp" in ended.stderr


def _run_with_a_port_taken_meanwhile(
    folder: Path, start: Path, holder: Path, port: int
) -> subprocess.CompletedProcess[str]:
    start.write_text(f"""#!/bin/sh
case "$*" in *hostfwd*)
    python3 -c 'import os, socket, signal, sys
held = socket.create_server(("127.0.0.1", {port}))
open("{holder}", "w").write(str(os.getpid()))
signal.pause()' >/dev/null 2>&1 &
    until [ -s {holder} ]; do sleep 0.05; done
esac
exec {shutil.which("qemu-system-x86_64")} "$@"
""")
    start.chmod(0o755)
    try:
        return run_vhostcomm(*words(folder, port), "--qemu", start, env=ENVIRONMENT, timeout=90)
    finally:
        os.kill(int(holder.read_text()), signal.SIGTERM)
