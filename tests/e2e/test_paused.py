"""A launched guest whose machine is paused: resumption, stop, reset."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.control.controlled import client, post
from tests.e2e.launched import BOOT_TIMEOUT, Images, Launched, qmp_command
from tests.e2e.moved import machine
from tests.serving import Serving, run_vhostcomm, until


def ask(control: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run_vhostcomm(verb, "--control", control, *words)


def test_guest_paused_by_a_full_disk_is_resumed(tmp_path: Path, images: Images) -> None:
    """The data disk is on a full tmpfs. During its boot, the guest writes to a hole of that disk."""
    disks, control = tmp_path / "disks", tmp_path / "control"
    disks.mkdir()
    mount = (
        f"mount -t tmpfs -o size=64k tmpfs {disks} && truncate -s 64M {disks}/data.img && "
        f'{{ cat /dev/zero > {disks}/filler 2>/dev/null || true; }} && exec "$@"'
    )
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", disks], check=False).returncode:
        pytest.skip("no mount in a namespace of its own here")
    run = Launched(tmp_path, *images.with_only(disks / "data.img").direct(reboot_once=1), "--control", str(control))
    run.command = ["unshare", "-m", "sh", "-ec", mount, "sh", *run.command]
    with run:
        paused = run.event("guest paused")
        assert paused["why"] == f"no space is left for disk {disks}/data.img (nospace)"
        assert paused["remedy"] == f"free space for {disks}/data.img; then vhostcomm resume vdsm"
        (listed,) = json.loads(ask(control, "guests", "--json").stdout)
        assert "no space is left for disk" in listed["problem"]

        again = ask(control, "resume")
        assert again.returncode == 1
        assert "stopped again at once: no space is left for disk" in again.stderr

        Path(f"/proc/{run.process.pid}/root{disks}/filler").unlink()
        back = ask(control, "resume")
        assert (back.returncode, back.stdout) == (0, "vdsm: resumed\n"), back.stderr
        run.event("resume requested", guest="vdsm")
        run.event("guest resumed")
        run.event("guest ready")
        assert ask(control, "resume").stdout == "vdsm: already running\n"
        assert ask(control, "balloon").stdout == "vdsm: has 384 MiB of 384 MiB\n"


def test_stop_of_a_guest_on_a_full_disk_fails(tmp_path: Path, images: Images) -> None:
    """`stop` by QMP has the effect of a full disk: a paused guest executes no command."""
    qmp = tmp_path / "qmp"
    extra = ["--", "-qmp", f"unix:{qmp},server=on,wait=off"]
    with Launched(tmp_path, *images.direct(), *extra, expect_exit=9) as run:
        run.ready()
        qmp_command(qmp, "stop")
        run.event("guest paused")
        run.process.send_signal(signal.SIGTERM)
        assert run.ends() == 9
    ended = next(line for line in run.log if line["event"] == "QEMU ended")
    assert ended["kind"] == "stopped-paused"
    stages = [line for line in run.log if line["event"] == "stopping QEMU"]
    assert stages[0]["stage"] == "QMP quit"
    assert "the guest can't shut down" in stages[0]["why"]


@pytest.mark.needs("qemu-img")
def test_qmp_of_a_qemu_that_something_else_runs(tmp_path: Path, images: Images) -> None:
    """With `qmp =` in its file, the daemon shows the pause, resumes the machine, and notices a reset and an earlier state."""
    sock, qmp, control, file, disk = (tmp_path / each for each in ("sock", "qmp", "control", "file.toml", "data.qcow2"))
    file.write_text(f'[guests.nas]\nsock = "{sock}"\nqmp = "{qmp}"\n')
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    extra = "-qmp", f"unix:{qmp},server=on,wait=off"
    with Serving("--config", file, "--control", control) as daemon, client(control) as http:
        daemon.timeout = BOOT_TIMEOUT
        assert daemon.event("QMP not connected")["why"].endswith("no QEMU listens there for QMP")
        with machine(tmp_path, images.with_only(disk), sock, "one", *extra, acpi="wait") as qemu:
            daemon.event("QMP connected")
            qemu.console.says("acpi: waiting for")  # the agent starts when the power button is pressed
            qemu.monitor.human("savevm early")
            qemu.monitor.do("system_powerdown")
            daemon.event("guest ready")
            qemu.console.says("vchannel: ready")
            qemu.monitor.do("stop")
            assert daemon.event("guest paused")["remedy"] == "vhostcomm resume nas"
            back = run_vhostcomm("resume", "--control", control, "nas")
            assert (back.returncode, back.stdout) == (0, "nas: resumed\n"), back.stderr
            assert "vhostcomm/" in daemon.event("resume requested", guest="nas")["by"]
            daemon.event("guest resumed")
            words: list[str | Path] = ["balloon", "--control", control, "nas"]
            asked = run_vhostcomm(*words, "--size", "256M")
            assert asked.stdout.endswith(" of 384 MiB, 256 MiB asked for\n"), asked.stderr
            assert "vhostcomm/" in daemon.event("balloon requested", bytes=256 << 20)["by"]
            # The guest returns its memory gradually.
            while run_vhostcomm(*words).stdout != "nas: has 256 MiB of 384 MiB\n":
                pass
            assert "keeps 128 MiB at least" in run_vhostcomm(*words, "--size", "64M").stderr
            assert post(http, "/guests/nas/call", command=2, timeout=60)[0] == 200
            qemu.monitor.human("loadvm early")
            until(lambda: http.get("/guests/nas").json()["last_frame"] is None, "QMP's event")
            assert post(http, "/guests/nas/shutdown", timeout=1)[0] == 409
            qemu.monitor.do("system_powerdown")
            qemu.console.says("vchannel: ready")
            assert "vchannel: request 6" not in qemu.console.text
            qemu.monitor.do("system_reset")
            assert daemon.event("machine reset")["by"] == "QMP"
            qemu.quit()
        daemon.event("QMP not connected")
