"""Installation of a stand-in `.pat`, by an ordinary user, complete or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.install import pats
from tests.install.pats import BOOT, MTIME, NAME
from tests.qemu.disks import run
from tests.serving import ENVIRONMENT, VHOSTCOMM, run_vhostcomm, started
from vhostcomm.install.installation import Options, install, is_sparse
from vhostcomm.install.progress import Progress, growth_reported
from vhostcomm.qemu.disk.inspection import inspect
from vhostcomm.qemu.disk.layouts import CONTAINER, LAYOUTS, Layout

pytestmark = pytest.mark.needs("mke2fs", "debugfs", "e2fsck", "sfdisk")

USER: Final = 54321
KEPT: Final = "-all,+dac_read_search"
"""The capabilities for reading this checkout and its Python in any folder; no others are kept."""

Facts = dict[str, tuple[str, int, int, int]]


def as_user(folder: Path) -> list[str]:
    """Return the words that run a following command as an ordinary user, who owns the folder."""
    if os.geteuid() != 0:
        return []
    os.chown(folder, USER, USER)
    words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set", KEPT]
    return [*words, "--inh-caps", KEPT, "--ambient-caps", KEPT]


def files_of(image: Path, *folders: str, layout: Layout = CONTAINER) -> Facts:
    """Return octal mode, owner, group and size of files in folders of the system partition, from debugfs."""
    found = {}
    for folder in folders:
        listing = run("debugfs", "-R", f"ls -l {folder}", f"{image}?offset={layout.first.start * 512}")
        for mode, uid, gid, size, name in re.findall(
            r"^ *\d+ +(\d+) \(\d\) +(\d+) +(\d+) +(\d+) +\S+ \S+ (.*?) *$", listing, re.MULTILINE
        ):
            found[f"{folder.rstrip('/')}/{name}"] = (mode, int(uid), int(gid), int(size))
    return found


@pytest.mark.needs("setpriv")
def test_an_ordinary_user_installs(tmp_path: Path) -> None:
    pat = pats.pat(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    nas = home / "nas"
    done = subprocess.run(
        [*as_user(home), *VHOSTCOMM, "install", pat, nas, "--data", "256G"],
        env=ENVIRONMENT | {"HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "finish"), done.stderr
    assert f"Start it: vhostcomm run {nas}" in done.stdout
    assert [each.name for each in home.iterdir()] == ["nas"]
    assert sorted(each.name for each in nas.iterdir()) == ["data.img", "synoboot.img", "system.img", "vhostcomm.toml"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in nas.iterdir()} == {0o600}
    assert (nas / "synoboot.img").read_bytes() == BOOT
    assert (nas / "data.img").stat().st_size == 256 << 30
    assert all(is_sparse(nas / f"{name}.img") for name in ("synoboot", "system", "data"))
    found = inspect(nas / "system.img")
    assert found.size == 10_738_466_816
    assert found.partitions == {1: CONTAINER.first, 2: CONTAINER.second}
    check_system(nas / "system.img")


def check_system(image: Path, layout: Layout = CONTAINER) -> None:
    """Check the files of `pats`, their owners and modes, and the file system."""
    place = f"{image}?offset={layout.first.start * 512}"
    assert files_of(image, "/etc", "/bin", "/usr/syno/synoman/indexdb", "/.SynoUpgradePackages", layout=layout) == {
        "/etc/.": ("40750", 3, 4, 4096),
        "/etc/..": ("40755", 0, 0, 4096),
        "/etc/both": ("100644", 2, 0, 6),  # from the first archive
        "/etc/shadow": ("100400", 0, 42, 8),
        '/etc/na"me with space': ("100644", 70_000, 80_000, 0),
        "/bin/.": ("40755", 0, 0, 4096),
        "/bin/..": ("40755", 0, 0, 4096),
        "/bin/su": ("104755", 0, 0, 4),
        "/bin/su-again": ("104755", 0, 0, 4),
        "/bin/sh": ("120777", 5, 0, 13),
        "/usr/syno/synoman/indexdb/.": ("40755", 0, 0, 4096),
        "/usr/syno/synoman/indexdb/..": ("40755", 0, 0, 4096),
        "/usr/syno/synoman/indexdb/index.db": ("100640", 0, 105, 5),
        "/.SynoUpgradePackages/.": ("40755", 0, 0, 4096),
        "/.SynoUpgradePackages/..": ("40755", 0, 0, 4096),
        "/.SynoUpgradePackages/FileStation-1.spk": ("100644", 6, 7, 7),
    }
    top = files_of(image, "/", layout=layout)
    assert top["/tmp"] == ("41777", 0, 0, 4096)
    assert top["/no-rights"] == ("100000", 0, 0, 6)
    assert top["/."] == ("40755", 0, 0, 4096)
    assert top["/gr\\xc3\\xbcn-\\xff"] == ("100644", 0, 0, 24)
    assert run("debugfs", "-R", "cat /etc/both", place) == "of hdp"
    assert 'Fast link dest: "/usr/bin/bash"' in run("debugfs", "-R", "stat /bin/sh", place)
    assert f"0x{MTIME:x}" in run("debugfs", "-R", "stat /etc", place)
    features = run("tune2fs", "-l", place)
    assert "Filesystem volume name:   1.44.1-42218\n" in features
    assert f"Block count:              {layout.first.size // 8}\n" in features
    assert not re.search("orphan_file|metadata_csum_seed", features)
    run("e2fsck", "-fn", place)


@pytest.mark.parametrize("version", [8, 9])
def test_the_layouts_of_the_guests_own_table(tmp_path: Path, version: int) -> None:
    expected = next(each for each in LAYOUTS if each.version == version)
    install(str(pats.pat(tmp_path)), str(tmp_path / "nas"), Options(layout=expected), lambda _: None)
    assert inspect(tmp_path / "nas/system.img").layout is expected
    check_system(tmp_path / "nas/system.img", expected)


@pytest.mark.needs("qemu-img")
def test_qcow2_and_events_for_programs(tmp_path: Path) -> None:
    done = run_vhostcomm("install", pats.pat(tmp_path), tmp_path / "nas", "--format", "qcow2", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"event": "progress", "step": "unpack the boot disk", "done": len(BOOT), "total": len(BOOT)} in events
    files = ["data.qcow2", "synoboot.qcow2", "system.qcow2", "vhostcomm.toml"]
    assert events[-1]["event"] == "installed"
    assert events[-1]["files"] == files == sorted(each.name for each in (tmp_path / "nas").iterdir())
    assert inspect(tmp_path / "nas/system.qcow2").partitions == {1: CONTAINER.first, 2: CONTAINER.second}
    written = tomllib.loads((tmp_path / "nas/vhostcomm.toml").read_text())["guests"]["nas"]["machine"]
    assert (written["boot"], written["system"], written["data"]) == ("synoboot.qcow2", "system.qcow2", ["data.qcow2"])
    assert written["mac"] == events[-1]["mac"] == mac_of_the_container("nas")
    assert "disk_options" not in written


def mac_of_the_container(hostname: str) -> str:
    """Derive a MAC address as the container's script does."""
    script = r"""echo "$0" | md5sum | sed 's/^\(..\)\(..\)\(..\)\(..\)\(..\).*$/02:11:32:\3:\4:\5/'"""
    return subprocess.run(["sh", "-c", script, hostname], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.needs("qemu-system-x86_64")
def test_the_options_of_disks_and_the_mac_that_are_asked_for(tmp_path: Path) -> None:
    words = ["--disk-options", "aio=io_uring,rotation-rate=7200", "--mac", "02-11-32-AB-CD-EF"]
    done = run_vhostcomm("install", pats.pat(tmp_path), tmp_path / "nas", *words)
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "nas/vhostcomm.toml").read_text())["guests"]["nas"]["machine"]
    assert (written["disk_options"], written["mac"]) == ("aio=io_uring,rotation-rate=7200", "02:11:32:ab:cd:ef")
    shown = run_vhostcomm("run", tmp_path / "nas", "--accel", "tcg", "--dry-run")
    assert shown.stdout.count(",aio=io_uring,") == shown.stdout.count(",rotation_rate=7200") == 3, shown.stderr


@pytest.mark.parametrize("words", [["--disk-options", "aio=slow"], ["--disk-options", "serial=A1"], ["--mac", "02:11"]])
def test_options_are_checked_before_anything_is_made(tmp_path: Path, words: list[str]) -> None:
    done = run_vhostcomm("install", pats.pat(tmp_path), tmp_path / "nas", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    install(str(pats.pat(tmp_path)), str(nas), Options(), lambda _: None)
    before = {each: each.stat().st_mtime_ns for each in (nas, *nas.iterdir())}
    again = run_vhostcomm("install", tmp_path / "gone.pat", nas)
    assert (again.returncode, again.stderr) == (0, "")
    assert "already has a guest, nothing was changed: data.img, synoboot.img, system.img" in again.stdout
    assert {each: each.stat().st_mtime_ns for each in (nas, *nas.iterdir())} == before


def test_a_configuration_alone_is_no_guest(tmp_path: Path) -> None:
    (tmp_path / "vhostcomm.toml").write_text("[guests.nas]\n")
    refused = run_vhostcomm("install", pats.pat(tmp_path.parent), tmp_path)
    assert refused.returncode == 1
    assert f"{tmp_path}: contains other files (vhostcomm.toml); choose a new directory" in refused.stderr
    refused = run_vhostcomm("run", tmp_path)
    assert refused.returncode == 2
    assert "nothing to start: " in refused.stderr
    assert "set boot in [guests.nas.machine] of the file" in refused.stderr


def test_progress_bars_on_a_terminal(tmp_path: Path) -> None:
    """Sizes and the remaining time are only on standard error; the result is on standard output."""
    pat = pats.pat(tmp_path, hda=pats.xz([*pats.HDA, pats.file("./big", random.Random(1).randbytes(3 << 20))]))
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [*VHOSTCOMM, "install", pat, tmp_path / "my nas"]
    environment = ENVIRONMENT | {"TERM": "xterm"}
    with started(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO if the other end is closed
            while data := os.read(ours, 1 << 16):
                shown += data
        os.close(ours)
        assert process.stdout
        assert process.stdout.read().splitlines()[-1] == f"Start it: vhostcomm run '{tmp_path}/my nas'"
        assert process.wait(20) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for step, size in (("unpack the boot disk", "4.1/4.1 MiB"), ("unpack the system", "3.0/3.0 MiB")):
        assert re.search(f"{step} +━+ {size} 0:00:00", text), text
    for step in ("make the file system", "set owners and modes", "check the file system", "finish"):
        assert step in text
    assert "bytes" not in text, "a step without a size shows a size"
    assert "\x1b[?25h" in shown.decode(), "the cursor was not restored"


def test_the_growth_of_a_file_is_reported(tmp_path: Path) -> None:
    """The growth shows the progress of the programs that write the disks."""
    file, seen = tmp_path / "image", threading.Event()
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if progress.done:
            seen.set()

    with growth_reported("make it", file, 5 << 20, report):
        file.write_bytes(random.Random(1).randbytes(3 << 20))
        assert seen.wait(60)
    assert reports[0] == Progress("make it", 0, 5 << 20)
    assert 0 < reports[-1].done <= reports[-1].total == 5 << 20


def test_a_signal_at_the_start_of_the_reports_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal arrives when their thread already runs. A remaining thread would keep the program from ending."""
    threads: list[threading.Thread] = []

    class Started(threading.Thread):
        def start(self) -> None:
            super().start()
            threads.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Thread", Started)
    with pytest.raises(KeyboardInterrupt), growth_reported("make it", tmp_path, 1, lambda _: None):
        pass
    assert not [each for each in threads if each.is_alive()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_installation_leaves_no_more_than_a_folder_for_the_next_run(tmp_path: Path, number: int) -> None:
    nas = tmp_path / "nas"
    pat = pats.pat(tmp_path)
    command = [*VHOSTCOMM, "install", pat, nas, "--json"]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["step"] == "make the file system":
                break
        process.send_signal(number)
        assert process.wait(20) != 0
    left = {each.name for each in tmp_path.iterdir()} - {NAME}
    assert left == ({".nas.installing"} if number == signal.SIGKILL else set())
    if number == signal.SIGKILL:
        assert run_vhostcomm("install", pat, nas).returncode == 0
        assert {each.name for each in tmp_path.iterdir()} == {NAME, "nas"}


def test_second_installation_at_once_is_rejected(tmp_path: Path) -> None:
    """The second is rejected while the first still works."""
    pat = pats.pat(tmp_path)
    with started([*VHOSTCOMM, "install", pat, tmp_path / "nas", "--json"], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        first.stdout.readline()
        first.send_signal(signal.SIGSTOP)
        second = run_vhostcomm("install", pat, tmp_path / "nas")
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert "another vhostcomm install is creating it" in second.stderr
        first.send_signal(signal.SIGCONT)
        first.stdout.read()
        assert first.wait(20) == 0
    assert (tmp_path / "nas/vhostcomm.toml").exists()


def test_python_without_extraction_filters(tmp_path: Path) -> None:
    """Python 3.11.0 to 3.11.3 lack them; our own checks reject the same archives."""
    without = (
        "import sys, tarfile; vars(tarfile).pop('data_filter', None); vars(tarfile).pop('tar_filter', None);"
        "from vhostcomm.cli import main; main()"
    )
    bad = pats.pat(tmp_path, hda=pats.xz([pats.other("./x", tarfile.LNKTYPE, "../../outside")]))
    for folder in ("bad", "good"):
        done = subprocess.run(
            [sys.executable, "-c", without, "install", bad, tmp_path / folder],
            env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, "out of the archive's tree" in done.stderr) == (
            (1, True) if folder == "bad" else (0, False)
        )
        pats.pat(tmp_path)
    check_system(tmp_path / "good/system.img")
