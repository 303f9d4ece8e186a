from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.qemu.roms import POWER_OFF, rom
from tests.trio_help import run_in_real_time
from vhostcomm.errors import QemuError
from vhostcomm.qemu import detect, kvm
from vhostcomm.qemu.argv import VHOST_SETTINGS
from vhostcomm.qemu.capabilities import DEVICES, Capabilities, Program, Reconnect
from vhostcomm.qemu.detect import find_capabilities
from vhostcomm.qemu.disk.io_modes import io_uring_problem
from vhostcomm.qemu.qmp import Qmp

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_capabilities_of_qemu_7_2_and_later(can: Capabilities) -> None:
    assert can.version[0].isdigit()
    assert can.reconnects
    assert can.memory_lock
    assert can.machines >= {"pc", "q35"}
    assert can.devices == set(DEVICES)
    assert can.kvm_problem == "it was not tried"


def test_detected_capabilities_agree_with_qemu(program: Program, can: Capabilities, tmp_path: Path) -> None:
    """Start QEMU with each option to see whether it accepts the option."""

    def starts(*arguments: str) -> bool:
        command = [*program.command, "-machine", "none", "-nodefaults", "-display", "none", *arguments]
        script = "quit\n"
        done = subprocess.run(
            [*command, "-monitor", "stdio"], input=script, capture_output=True, text=True, check=False, timeout=30
        )
        return done.returncode == 0

    chardev = f"socket,id=c,path={tmp_path / 's'}"
    assert can.reconnects
    assert starts("-chardev", f"{chardev},{can.reconnects.value}=1")
    assert starts("-chardev", f"{chardev},reconnect-ms=1000") is (can.reconnects is Reconnect.MILLISECONDS)
    assert starts("-overcommit", "mem-lock=on") is can.memory_lock
    assert starts("-sandbox", "on") is can.sandbox
    assert starts("-machine", "pc,hpet=off")
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    drive = f"file={disk},format=raw,if=none,cache.direct=on"
    assert starts("-drive", f"{drive},aio=io_uring") is (can.io_uring and not io_uring_problem())
    assert starts("-device", "virtio-balloon-pci,free-page-reporting=on", "-machine", "pc,accel=tcg")
    properties = subprocess.run(
        [*program.command, "-device", "vhost-scsi-pci,help"], capture_output=True, text=True, check=True, timeout=30
    )
    known = re.findall(r"^ +([a-z_]+)=", properties.stdout, re.MULTILINE)
    assert set(known) >= VHOST_SETTINGS.keys()
    assert "set_driverok" not in known, "only the genuine host's QEMU has set_driverok"
    for device in ("pvpanic-pci", "no-such-device"):
        assert starts("-machine", "pc,accel=tcg", "-device", device) is (device in can.devices)


# -- programs that are not QEMU


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("exit 3", "QEMU closed the QMP connection; it ended with 3; its output: nothing"),
        ("echo what? >&2; exit 1", "it ended with 1; its output:\n    what?"),
        ("kill -SEGV $$", "it ended with -11"),
        ("echo QEMU emulator version 5.2.0", "it ended with 0; its output:\n    QEMU emulator version 5.2.0"),
    ],
)
def test_program_other_than_qemu_is_rejected(tmp_path: Path, script: str, what: str) -> None:
    path = tmp_path / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(QemuError) as caught:
        run_in_real_time(find_capabilities, Program(str(path)))
    assert str(caught.value).startswith(f"{path} doesn't answer as QEMU 7.2 or later does: ")
    assert what in str(caught.value)


def test_silent_program_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "PROBE_TIMEOUT", 0.2)
    path = tmp_path / "qemu"
    path.write_text("#!/bin/sh\nexec sleep 1000\n")
    path.chmod(0o755)
    with pytest.raises(QemuError, match=r"within 0\.2 s.*it still ran; its output: nothing"):
        run_in_real_time(find_capabilities, Program(str(path)))


def test_file_that_is_not_a_program_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(QemuError, match="not executable; chmod"):
        run_in_real_time(find_capabilities, Program(str(path)))
    path.chmod(0o755)
    with pytest.raises(QemuError, match="Exec format error"):
        run_in_real_time(find_capabilities, Program(str(path)))


def test_missing_qemu_is_reported(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"no such program; install QEMU"):
        run_in_real_time(find_capabilities, Program("qemu-of-nobody"))
    with pytest.raises(QemuError, match="a directory, not a program"):
        run_in_real_time(find_capabilities, Program(str(tmp_path)))


# -- trials of accelerators


def test_trial_succeeds_with_tcg(can: Capabilities) -> None:
    assert run_in_real_time(kvm.trial, can.program.command, "tcg") == "", "the trial's instructions do not run"


def test_a_failed_trial_has_a_reason(can: Capabilities) -> None:
    assert "invalid accelerator no-such" in run_in_real_time(kvm.trial, can.program.command, "no-such")


def test_trial_times_out(can: Capabilities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "TRIAL_TIMEOUT", 0.001)
    assert "took more than 0.001 s: KVM interprets" in run_in_real_time(kvm.trial, can.program.command, "tcg")


def test_kvm_is_tried_for_real(program: Program, tmp_path: Path) -> None:
    """The result agrees with a guest in 16-bit mode, which runs with every KVM, also with one that interprets."""
    commands, recorder = tmp_path / "commands", tmp_path / "qemu"
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {commands}\nexec {shlex.join(program.command)} "$@"\n')
    recorder.chmod(0o755)
    can = run_in_real_time(find_capabilities, Program(str(recorder)))
    is_tried = "accel=kvm" in commands.read_text()
    machine = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc,accel=kvm", "-m", "16"]
    command = [*program.command, *machine, *rom(tmp_path, POWER_OFF)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 0:
        assert is_tried
        assert can.kvm_problem == "" or can.kvm_problem.endswith("KVM interprets code instead of executing it")
    elif is_tried:
        assert done.stderr.splitlines()[-1] in can.kvm_problem
    else:
        assert can.kvm_problem.startswith(
            ("this QEMU is built without KVM", "no /dev/kvm: ", "/dev/kvm: no permission")
        )


class QmpWithoutKvm(Qmp):
    async def execute(self, command: str, /, **arguments: object) -> object:
        return {"present": False} if command == "query-kvm" else await super().execute(command, **arguments)


@pytest.mark.parametrize(
    ("has_kvm", "there", "allowed", "what"),
    [
        (False, True, True, "this QEMU is built without KVM"),
        (True, False, True, "no /dev/kvm: no virtualisation in this machine"),
        (True, True, False, "/dev/kvm: no permission; add the user to the group kvm"),
        (True, True, True, "tried"),
    ],
)
def test_kvm_that_cannot_work_is_not_tried(
    program: Program, monkeypatch: pytest.MonkeyPatch, has_kvm: bool, there: bool, allowed: bool, what: str
) -> None:
    async def trial(*_: object) -> str:
        return "tried"

    exists, access = Path.exists, os.access
    monkeypatch.setattr(Path, "exists", lambda path: there if path == Path("/dev/kvm") else exists(path))
    monkeypatch.setattr(os, "access", lambda path, mode: allowed if path == "/dev/kvm" else access(path, mode))
    monkeypatch.setattr(kvm, "trial", trial)
    if not has_kvm:
        monkeypatch.setattr(detect, "Qmp", QmpWithoutKvm)
    assert run_in_real_time(find_capabilities, program).kvm_problem.startswith(what)
