"""Child processes: which environment they inherit, and who reaps their orphans."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
from pathlib import Path

import attrs
import pytest

import vhostcomm
from tests.qemu_host.running import QEMU_HOST, QemuHost, listens
from tests.qemu_host.test_print_script import beside
from tests.serving import ENVIRONMENT, TIMEOUT, fake_guest, started, until
from vhostcomm.cli.cluster import PASSWORD
from vhostcomm.config import values
from vhostcomm.config.models import Service
from vhostcomm.config.reading import variable
from vhostcomm.linux.environment import SECRET_VARIABLES

SPAWNS = {"Popen", "run", "call", "check_call", "check_output", "open_process", "run_process", "posix_spawn", "system"}


def test_secret_variables_match_the_secret_settings() -> None:
    settings = {variable(each) for each in attrs.fields(Service) if each.metadata["kind"] is values.TOKEN}
    assert settings | {PASSWORD} == SECRET_VARIABLES


@pytest.mark.slow
def test_every_program_is_started_with_the_environment_for_children() -> None:
    found = 0
    for path in Path(vhostcomm.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.expr() as of, attr=name)) if (
                    name in SPAWNS and ast.unparse(of) in {"subprocess", "os", "trio", "trio.lowlevel"}
                ) and not (name == "run" and ast.unparse(of) == "trio"):
                    found += 1
                    (given,) = [ast.unparse(each.value) for each in node.keywords if each.arg == "env"]
                    assert given.startswith("child_environment("), f"{path}:{node.lineno}: env={given}"
    assert found >= 4, "the check finds nothing any longer"


def test_script_of_qemu_host_does_not_inherit_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "VHOSTCOMM_CONTROL_TOKEN", "a-long-random-secret")
    environment = tmp_path / "environment"
    program = beside(tmp_path, f"#!/bin/sh\nenv > {environment}.new; mv {environment}.new {environment}\n")
    with QemuHost(tmp_path, program=program) as host, fake_guest(host.sock) as guest:
        guest.serial()
        until(environment.exists)
    assert "PATH=" in environment.read_text()
    assert "a-long-random-secret" not in environment.read_text()


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.mark.slow
def test_orphans_are_reaped_as_pid_1(tmp_path: Path) -> None:
    """A container without an init runs the program as PID 1. The reaper must not lose the script's own status."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no new user and PID namespace can be made here")
    program = tmp_path / "qemu-host"
    program.symlink_to(QEMU_HOST)
    sock, api, orphan = tmp_path / "guest.sock", tmp_path / "api.sock", tmp_path / "orphan"
    # The orphan's parent ends first; then the orphan, when the pipe is closed.
    (tmp_path / "print.sh").write_text(f"(setsid sh -c 'echo $$ > {orphan}; read x' < {tmp_path}/pipe & ) \nexit 3\n")
    os.mkfifo(tmp_path / "pipe")
    command = [*UNSHARE, str(program), f"-addr=unix:{sock}", "-api", str(api)]
    with (
        (tmp_path / "err").open("wb") as errors,
        started(command, stdout=subprocess.DEVNULL, stderr=errors) as outer,
    ):
        until(lambda: listens(api) or outer.poll() is not None, "its sockets")
        with fake_guest(sock) as guest:
            guest.serial()
            writing = os.open(tmp_path / "pipe", os.O_WRONLY)
            until(lambda: orphan.exists() and orphan.read_text(), "the orphan")
            pid1 = _only_child(outer.pid)
            until(lambda: "the script failed" in (tmp_path / "err").read_text())
            assert "status=3" in (tmp_path / "err").read_text()
            until(lambda: len(_children(pid1)) == 1, "PID 1 is the orphan's parent")
            os.close(writing)
            until(lambda: not _children(pid1), "the orphan is reaped")
        os.kill(pid1, signal.SIGTERM)
        assert outer.wait(TIMEOUT) == 0


def _children(pid: int) -> list[int]:
    found = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(each) for text in found for each in text.split()]


def _only_child(pid: int) -> int:
    (child,) = _children(pid)
    return child
