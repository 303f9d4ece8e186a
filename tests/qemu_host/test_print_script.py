"""The script beside the program, and the trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.qemu_host.running import QEMU_HOST, QemuHost, answering
from tests.serving import fake_guest, until
from vchannel import HostCommand


def beside(folder: Path, script: str, mode: int = 0o755) -> Path:
    """A link to the program, in a folder with this script."""
    program = folder / "qemu-host"
    program.symlink_to(QEMU_HOST)
    (folder / "print.sh").write_text(script)
    (folder / "print.sh").chmod(mode)
    return program


@pytest.mark.parametrize("command", [5, 11, 12, 13])
@pytest.mark.parametrize("mode", [0o755, 0o644])
@pytest.mark.slow
def test_script_is_run_once_a_boot(tmp_path: Path, command: int, mode: int) -> None:
    calls = tmp_path / "runs"
    program = beside(tmp_path, f"#!/bin/sh\necho run >> {calls}\n", mode)

    def runs() -> int:
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    with QemuHost(tmp_path, program=program) as host, fake_guest(host.sock) as guest:
        for before in (HostCommand.HOST_VERSION, HostCommand.UPDATE_DEADLINE):
            guest.ask(before)
        assert runs() == 0
        for each in (command, 5, 11, 12, 13):
            guest.ask(HostCommand(each))
        until(lambda: runs() == 1)
        guest.send(HostCommand.GUEST_POWER, needs_response=False)
        guest.ask(HostCommand.HOST_MAC)
        assert runs() == 1
        for each in (command, 5, 11, 12, 13):
            guest.ask(HostCommand(each))
        until(lambda: runs() == 2)


def test_boots_while_the_script_runs_cause_one_more_run(tmp_path: Path) -> None:
    runs, go, again = tmp_path / "runs", tmp_path / "go", tmp_path / "again"
    os.mkfifo(go)
    when = f"[ -e {again} ] && echo later || echo first"
    program = beside(tmp_path, f"#!/bin/sh\n({when}) >> {runs}\nread line < {go}\n")

    def started() -> list[str]:
        return runs.read_text().split() if runs.exists() else []

    with QemuHost(tmp_path, program=program) as host, fake_guest(host.sock) as guest:
        for _ in range(50):
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
            guest.serial()
        until(lambda: started() == ["first"])
        go.write_text("end\n")
        until(lambda: started() == ["first", "first"])
        go.write_text("end\n")
        guest.serial()
        again.touch()  # a third run before this would be one too many
        guest.send(HostCommand.GUEST_POWER, needs_response=False)
        guest.serial()
        until(lambda: len(started()) == 3)
        assert started() == ["first", "first", "later"]
        go.write_text("end\n")


def test_script_runs_in_the_background(tmp_path: Path) -> None:
    """A script that never ends delays neither guests nor the end of the program."""
    program = beside(tmp_path, "#!/bin/sh\necho begun\nexec sleep 1000\n")
    with QemuHost(tmp_path, program=program) as host, fake_guest(host.sock) as guest:
        guest.serial()
        until(lambda: "begun" in host.trace)
        assert guest.serial() == "0" * 13


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", "#!/no/such/thing\n"])
def test_failure_of_the_script_is_logged(tmp_path: Path, script: str) -> None:
    program = beside(tmp_path, script)
    with QemuHost(tmp_path, program=program) as host, fake_guest(host.sock) as guest:
        guest.serial()
        until(lambda: "print.sh" in host.errors)
        assert guest.serial() == "0" * 13


def test_flag_names_a_script_elsewhere(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere"
    script.write_text("echo begun\n")
    with QemuHost(tmp_path, "-script", str(script)) as host, fake_guest(host.sock) as guest:
        guest.serial()
        until(lambda: "begun" in host.trace)
    assert host.errors == ""


@pytest.mark.parametrize("how", ["link", "wrapper", "flag"])
@pytest.mark.slow
def test_missing_script_is_logged_once(tmp_path: Path, how: str) -> None:
    program = tmp_path / "host.bin"
    beside_ours = QEMU_HOST.with_name("print.sh")
    if how == "wrapper":
        program.write_text(f'#!/bin/sh\nexec {QEMU_HOST} "$@"\n')
        program.chmod(0o755)
        (tmp_path / "print.sh").write_text("exit 3\n")
        looked = [beside_ours]
    else:
        program.symlink_to(QEMU_HOST)
        looked = [tmp_path / "print.sh", beside_ours] if how == "link" else [tmp_path / "missing"]
    words = [f"-script={tmp_path}/missing"] if how == "flag" else []
    with QemuHost(tmp_path, *words, program=program) as host, fake_guest(host.sock) as guest:
        for _ in range(2):
            guest.serial()
            guest.send(HostCommand.GUEST_POWER, needs_response=False)
        guest.serial()
    (line,) = host.errors.splitlines()
    assert "script not found" in line
    assert f"looked={', '.join(map(str, looked))} " in line.replace("'", "")
    assert "-script=PATH" in line


def test_empty_script_flag_starts_no_script(tmp_path: Path) -> None:
    with QemuHost(tmp_path, "-script=") as host, fake_guest(host.sock) as guest:
        guest.serial()
    assert host.errors == ""


def test_trace_has_a_line_for_each_frame(tmp_path: Path) -> None:
    with QemuHost(tmp_path, "-guestsn=1234abc567890") as host:
        with answering(host.sock, lambda _: b'{"data":{}}\0') as guest:
            host.get("/read?command=10")
            host.get("/write?command=6")
        with fake_guest(host.sock) as guest:
            guest.send(HostCommand.GUEST_TIMESTAMP, b"1648798789\0", needs_response=False)
            guest.ask(99)
    lines = [
        "Received: Guest serial [5]",
        "Replied: 1234ABC567890 [5]",
        "Request: Get information [10]",
        'Received: Get information [10] {"data":{}}',
        "Request: Poweroff [6]",
        "Received: Guest timestamp [17] 1648798789",
        "Received: Unknown [99]",
        "Replied: [99]",
    ]
    assert host.trace == lines
