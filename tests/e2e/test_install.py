"""Installation of a stand-in `.pat`, and a boot of the installed guest, as an ordinary user."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.launched import Images, Launched
from tests.install import pats
from tests.install.test_install import as_user
from tests.qemu.disks import run
from tests.serving import ENVIRONMENT, VHOSTCOMM

VERSION = b"7.2-72806"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="vhostcomm-test-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.needs("mke2fs", "debugfs", "e2fsck", "sfdisk", "setpriv")
def test_from_the_pat_to_a_guest_that_powers_itself_off(tmp_path: Path, open_folder: Path, images: Images) -> None:
    home, nas = tmp_path / "home", tmp_path / "home/nas"
    home.mkdir()
    user = as_user(home)
    boot = pats.zipped(**{"synology_kvmx64_virtualdsm.bin": images.boot.read_bytes()})
    pat = pats.pat(
        tmp_path, boot=boot, hda=pats.xz([*pats.HDA, pats.file("./etc/VERSION", VERSION, mode=0o440, gid=9)])
    )
    subprocess.run([*user, *VHOSTCOMM, "install", pat, nas, "--data", "1G"], env=ENVIRONMENT, check=True)

    qemu = list(images.qemu)
    if len(qemu) > 2:  # a QEMU in the cache: the user may read it, but can execute nothing there or below tmp_path
        qemu[1] = shutil.copy(qemu[1], str(open_folder / "qemu"))
    words = [str(nas), *qemu, "--accel", "tcg", "--memory", "512M", "--net", "none"]
    words += ["--guest-serial", "1234ABC567890", "--", "-fw_cfg", "name=opt/vchannel,string=vchannel.system=1"]
    launched = Launched(home, *words)
    launched.command = [*user, *launched.command]
    with launched as guest:
        guest.ready()
    # The context's SIGTERM has stopped it: the guest powered itself off.
    text = guest.console.text
    for line in (
        "SYSLINUX",
        "[synoboot]",
        "[sda]",
        "[sdb]",
        "Partition Version=0",
        f"system: mounted, {VERSION.decode()}",
        "system: unmounted",
        "answer 5 guest_serial",
        "vchannel: request 6 poweroff",
        "reboot: Power down",
    ):
        assert line in text, line
    guest.console.kept_to_the_protocol()
    system = f"{nas}/system.img?offset={2048 * 512}"
    # The file has the owner and mode of the archive.
    assert run("debugfs", "-R", "cat /etc/seen", system).startswith("-r--r-----    1 0        9 ")
    run("e2fsck", "-fn", system)
    assert sorted(each.name for each in nas.iterdir()) == ["data.img", "synoboot.img", "system.img", "vhostcomm.toml"]
