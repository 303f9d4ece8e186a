"""A daemon and a command, pasted together. The command waits only for a daemon that is just starting."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from tests.serving import ENVIRONMENT, TIMEOUT, VHOSTCOMM, Serving, started, until
from vhostcomm.channel.sockets import Listener
from vhostcomm.config.address import Listen
from vhostcomm.linux.starting import attempts, is_daemon, is_starting

OURS = shlex.join(VHOSTCOMM)


def pasted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lines without a pause, in a shell whose daemons end with it."""
    ending = "\nstatus=$?; kill $(jobs -p); wait; exit $status\n"
    return subprocess.run(
        ["bash", "-c", script.replace("vhostcomm ", f"{OURS} ") + ending],
        env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(folder)}, cwd=folder, timeout=TIMEOUT * 2,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_probe_waits_for_the_daemon_before_it(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock nas=./nas >serve.log &\nvhostcomm probe --sock ./nas", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "GUEST_SERIAL" in done.stdout


@pytest.mark.slow
def test_a_verb_finds_the_daemon_before_it(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock nas=./nas >serve.log &\nvhostcomm guests", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nas" in done.stdout


@pytest.mark.slow
def test_verb_waits_at_the_given_control_surface(tmp_path: Path) -> None:
    script = "vhostcomm serve --sock ./nas --control ./c >serve.log &\nvhostcomm guests --control ./c"
    done = pasted(script, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_verb_waits_for_a_guest_of_the_second_daemon(tmp_path: Path) -> None:
    first = ("--sock", tmp_path / "one", "--control", tmp_path / "control.sock")
    with Serving(*first, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}):
        done = pasted("vhostcomm serve --sock two=./two >serve.log &\nvhostcomm info two", tmp_path)
    assert (done.returncode, "QEMU is not connected to" in done.stderr) == (1, True), done.stderr
    assert "two" in done.stdout


@pytest.mark.slow
def test_command_does_not_wait_for_a_failed_daemon(tmp_path: Path) -> None:
    done = pasted("vhostcomm serve --sock ./none/nas >serve.log 2>&1 &\nvhostcomm probe --sock ./none/nas", tmp_path)
    assert done.returncode == 1
    assert "There is no such socket" in done.stderr


def test_without_a_daemon_the_command_tries_once(tmp_path: Path) -> None:
    program = "from vhostcomm.linux.starting import attempts; print(len([*attempts()]))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)},
        timeout=TIMEOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"


def test_successful_first_attempt_reads_no_process() -> None:
    program = """if True:
        import sys
        from vhostcomm.linux.starting import attempts
        sys.addaudithook(lambda event, found: print(event, found) if event in {"open", "os.listdir", "os.scandir"} else None)
        next(attempts())
        """
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, timeout=TIMEOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


def test_a_daemon_is_just_starting_for_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is in seconds, although the kernel counts a process's age in clock ticks."""
    monkeypatch.setattr("vhostcomm.linux.starting.START_TIMEOUT", 1800)
    os.mkfifo(tmp_path / "serve")
    with started(["vhostcomm", "serve"], executable=shutil.which("cat"), cwd=tmp_path) as daemon:
        until(is_starting, "the daemon's command line")
        monkeypatch.setattr("vhostcomm.linux.starting.START_TIMEOUT", 0)
        assert not is_starting()
        daemon.kill()


def test_a_shells_child_may_become_a_daemon_until_it_executes_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pasted command may run before the shell's child has become the daemon."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("vhostcomm.linux.starting.EXEC_TIMEOUT", 1800)
    os.mkfifo(tmp_path / "go")
    script = "(read <go; exec sleep 1000) & echo $!; wait"
    with started(
        ["bash", "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=dict(os.environ)
    ) as shell:
        assert shell.stdout
        child = int(shell.stdout.readline())
        assert is_starting()
        monkeypatch.setattr("vhostcomm.linux.starting.EXEC_TIMEOUT", 0)
        assert not is_starting()
        monkeypatch.setattr("vhostcomm.linux.starting.EXEC_TIMEOUT", 1800)
        (tmp_path / "go").write_text("\n")
        until(lambda: not is_starting(), "the execution of the program")
        os.kill(child, signal.SIGKILL)


def test_attempts_follow_changes_of_a_folder_and_the_daemons_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No timer is involved: the timer has an hour, so the test would hang."""
    monkeypatch.setattr("vhostcomm.linux.starting.START_INTERVAL", 3600)
    monkeypatch.setattr("vhostcomm.linux.starting.START_TIMEOUT", 1800)
    os.mkfifo(tmp_path / "serve")
    cat = shutil.which("cat")
    with started(["vhostcomm", "serve"], executable=cat, cwd=tmp_path) as daemon:
        # Popen returns when the exec has begun; the command line appears slightly later.
        until(is_starting, "the daemon's command line")
        attempt = attempts(tmp_path / "runtime" / "control")
        next(attempt)  # at once
        next(attempt)
        (tmp_path / "runtime").mkdir()
        next(attempt)
        (tmp_path / "runtime" / "control").mkdir()
        next(attempt)
        with closing(Listener(Listen(tmp_path / "runtime" / "control" / "sock"))):
            next(attempt)
        (tmp_path / "serve").write_text("")
        daemon.wait(TIMEOUT)
        assert len([*attempt]) <= 2, "more attempts than for the socket's other events, and a last one"


def test_a_socket_that_listens_is_an_event(tmp_path: Path) -> None:
    """The creation of a socket's file is no event, because the socket refuses connections until it listens."""
    with INotify() as changes:
        changes.add_watch(tmp_path, flags.CREATE | flags.ATTRIB)
        with closing(Listener(Listen(tmp_path / "sock"))):
            events = [(event.name, event.mask) for event in changes.read(timeout=0)]
    assert events[-1] == ("sock", flags.ATTRIB)


@pytest.mark.parametrize(
    ("line", "daemon"),
    [
        ("/usr/bin/python3 /opt/vhostcomm/bin/vhostcomm serve --sock x", True),
        ("python -m vhostcomm run --boot x", True),
        ("sudo vhostcomm serve", True),
        ("python3 ./vdsm_run.py --boot x", True),
        ("/usr/bin/python3 /usr/bin/qemu-host -addr=/x", True),
        ("python -m vhostcomm guests", False),
        ("vhostcomm help serve", False),
        ("tail -f /var/log/vhostcomm", False),
        ("vim serve", False),
        ("", False),
    ],
)
def test_daemons_are_known_by_their_command(line: str, daemon: bool) -> None:
    assert is_daemon(line.split()) is daemon
