"""A launched guest whose machine is paused, and the ways on."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.launched import Console, Images, Launched, command_of, qmp_command
from tests.serving import Serving, run_vhostcomm, started


def ask(control: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run_vhostcomm(verb, "--control", control, *words)


def test_full_disk_and_the_way_back(tmp_path: Path, images: Images) -> None:
    """A tmpfs without a free page. The guest writes to a hole of its data disk as it boots."""
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
        run.event("guest resumed")
        run.event("guest ready")
        assert ask(control, "resume").stdout == "vdsm: already running\n"
        assert ask(control, "balloon").stdout == "vdsm: has 384 MiB of 384 MiB\n"


def test_stop_of_a_guest_on_a_full_disk_is_no_success(tmp_path: Path, images: Images) -> None:
    """`stop` by QMP stands for the full disk: what is asked of a paused guest is never carried out."""
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
    stages = [line for line in run.log if line["event"] == "stopping by"]
    assert stages[0]["stage"] == "QMP quit"
    assert "the guest can't shut down" in stages[0]["why"]


def test_qmp_of_a_qemu_that_something_else_runs(tmp_path: Path, images: Images) -> None:
    """`qmp =` in the file: the daemon shows the pause, and resumes."""
    sock, qmp, control, file = (tmp_path / each for each in ("sock", "qmp", "control", "file.toml"))
    file.write_text(f'[guests.nas]\nsock = "{sock}"\nqmp = "{qmp}"\n')
    console = Console(tmp_path / "console")
    command = command_of(
        *images.direct(), "--sock", str(sock), "--serial-console", str(console.path),
        "--", "-qmp", f"unix:{qmp},server=on,wait=off", "-qmp", f"unix:{qmp}2,server=on,wait=off",
    )  # fmt: skip
    with Serving("--config", file, "--control", control) as daemon:
        assert daemon.event("QMP not connected")["why"].endswith("no QEMU listens there for QMP")
        with started(command, stdin=subprocess.DEVNULL):
            daemon.patience = 90
            daemon.event("QMP connected")
            daemon.event("guest ready")
            qmp_command(Path(f"{qmp}2"), "stop")
            assert daemon.event("guest paused")["remedy"] == "vhostcomm resume nas"
            back = run_vhostcomm("resume", "--control", control, "nas")
            assert (back.returncode, back.stdout) == (0, "nas: resumed\n"), back.stderr
            daemon.event("guest resumed")
            words: list[str | Path] = ["balloon", "--control", control, "nas"]
            asked = run_vhostcomm(*words, "--size", "256M")
            assert asked.stdout.endswith(" of 384 MiB, 256 MiB asked for\n"), asked.stderr
            while run_vhostcomm(*words).stdout != "nas: has 256 MiB of 384 MiB\n":  # the guest gives it back by and by
                pass
            assert "keeps 128 MiB at least" in run_vhostcomm(*words, "--size", "64M").stderr
            qmp_command(Path(f"{qmp}2"), "system_reset")
            assert daemon.event("machine reset")["by"] == "QMP"
        daemon.event("QMP not connected")
