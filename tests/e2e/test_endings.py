"""Endings of a launched QEMU, and the exit status of its launcher."""

from __future__ import annotations

import os
import pty
import signal
import termios
from pathlib import Path

import pytest

from tests.e2e.launched import Images, Launched, gone
from tests.serving import main_threads_children, until
from vhostcomm.qemu.terminal import MODES


def test_killed_qemu_is_reported_with_its_command(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), expect_exit=5) as run:
        run.event("QEMU runs")
        os.kill(run.qemu_pid, signal.SIGKILL)
        assert run.ends() == 5
    ended = next(line for line in run.log if line["event"] == "QEMU ended")
    assert (ended["kind"], ended["code"]) == ("crashed", -9)
    assert "SIGKILL" in "".join(run.other)
    assert "-device virtserialport" in "".join(run.other), "the command to paste is missing"
    assert {each.name for each in tmp_path.iterdir()} == {"console", "empty.img"}


def test_killed_qemu_is_restarted(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.direct(), "--restart", "on-failure") as run:
        run.ready()
        os.kill(run.qemu_pid, signal.SIGKILL)
        assert run.event("starting again")["number"] == 1
        run.ready()


def test_qemu_that_another_program_ends_is_reported(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), expect_exit=7) as run:
        run.event("QEMU runs")
        os.kill(run.qemu_pid, signal.SIGTERM)
        assert run.ends() == 7


@pytest.mark.any_qemu
def test_hangup_of_its_terminal_is_ignored_under_nohup(tmp_path: Path, images: Images) -> None:
    run = Launched(tmp_path, *images.idle(tmp_path), "--grace", "6")
    run.command = ["nohup", *run.command]
    with run:
        run.event("QEMU runs")
        run.process.send_signal(signal.SIGHUP)
        run.process.send_signal(signal.SIGTERM)
        assert run.event("stopping")["why"] == "SIGTERM"
        assert run.ends() == 0
    assert not [line for line in run.log if line["event"] == "stopping faster"]


@pytest.mark.any_qemu
def test_a_terminal_is_restored_after_sigterm(tmp_path: Path, images: Images) -> None:
    """The guest's console is on the terminal: QEMU sets raw mode, and the firmware other modes."""
    ours, theirs = pty.openpty()
    try:
        run = Launched(tmp_path, *images.idle(tmp_path), "--grace", "6")
        at = run.command.index("--serial-console")
        del run.command[at : at + 2]
        terminal = os.ttyname(theirs)
        run.command = ["sh", "-c", f'exec setsid --ctty "$@" <{terminal} >{terminal}', "sh", *run.command]
        before = termios.tcgetattr(theirs)
        with run:
            run.event("QEMU runs")
            until(lambda: termios.tcgetattr(theirs) != before, "QEMU's raw mode")
            run.process.send_signal(signal.SIGTERM)
            assert run.ends() == 0
            assert termios.tcgetattr(theirs) == before
            os.set_blocking(ours, False)
            shown = os.read(ours, 1 << 20)
            assert shown.endswith(MODES)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.any_qemu
def test_interrupt_of_a_script_leaves_its_background_guest(tmp_path: Path, images: Images) -> None:
    """A non-interactive shell makes programs that it starts with & ignore SIGINT."""
    run = Launched(tmp_path, *images.idle(tmp_path), "--grace", "6")
    run.command = ["sh", "-c", '"$@" & wait $!', "sh", *run.command]
    with run:
        run.event("QEMU runs")
        (launcher,) = main_threads_children(run.process.pid)
        os.kill(launcher, signal.SIGINT)
        os.kill(launcher, signal.SIGTERM)
        assert run.event("stopping")["why"] == "SIGTERM"
        assert run.ends() == 0


def test_panic_ends_the_launcher_with_status_4(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.direct(panic_after=0.5), expect_exit=4) as run:
        run.ready()
        assert run.ends() == 4
    assert [line["kind"] for line in run.log if line["event"] == "QEMU ended"] == ["panicked"]


def test_a_stopped_qemu_is_killed(tmp_path: Path, images: Images) -> None:
    with Launched(tmp_path, *images.idle(tmp_path), "--grace", "4", expect_exit=8) as run:
        run.event("QEMU runs")
        os.kill(run.qemu_pid, signal.SIGSTOP)
        run.process.send_signal(signal.SIGTERM)
        assert run.ends() == 8
    assert [line["stage"] for line in run.log if line["event"] == "stopping QEMU"][-1] == "SIGKILL"


@pytest.mark.any_qemu
def test_qemu_dies_with_its_supervisor(tmp_path: Path, images: Images) -> None:
    """The main thread must start QEMU: the kernel kills QEMU at the end of the thread that started it."""
    with Launched(tmp_path, *images.idle(tmp_path), expect_exit=None) as run:
        run.event("QEMU runs")
        assert run.qemu_pid in main_threads_children(run.process.pid)
        with gone(run.qemu_pid, within=1):
            run.process.kill()
