"""A real kernel in a QEMU with the exact arguments that a snippet prints."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.e2e.launched import BOOT_TIMEOUT, Console, Images
from tests.serving import Serving, held_port, run_vhostcomm, started

SERIAL = "1234ABC567890"


def snippet(kind: str, sock: str, *words: str) -> str:
    printed = run_vhostcomm("snippet", kind, "--sock", f"nas={sock}", *words)
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def is_served(folder: Path, images: Images, sock: str, arguments: str) -> Console:
    """Boot the stand-in guest with the printed arguments, pasted after a command into a shell."""
    console = Console(folder / "console")
    path, *data = images.qemu[1::2]
    command = [path, *(word for place in data for word in ("-L", place))]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc,accel=tcg", "-m", "384"]
    command += ["-serial", f"file:{console.path}", "-kernel", str(images.kernel), "-initrd", str(images.initramfs)]
    command += ["-append", images.cmdline]
    pasted = f"exec {shlex.join(command)} {arguments}"
    with (
        Serving("--sock", f"nas={sock}", "--guest-serial", SERIAL, "--control", "none") as daemon,
        started(["bash", "-c", pasted], stdin=subprocess.DEVNULL),
    ):
        daemon.timeout = BOOT_TIMEOUT
        daemon.event("guest ready", guest="nas")
        assert SERIAL in console.says("vchannel: answer 5 guest_serial")
        console.says("vchannel: ready")
    console.kept_to_the_protocol()
    return console


@pytest.mark.parametrize("kind", ["listen", "connect", "tcp"])
def test_qemu_with_the_printed_arguments(tmp_path: Path, images: Images, kind: str) -> None:
    place = tmp_path / "a socket, of nas"  # commas are doubled, spaces quoted
    with held_port() as port:
        sock = {"listen": str(place), "connect": f"connect:{place}", "tcp": f"tcp:127.0.0.1:{port}"}[kind]
        console = is_served(tmp_path, images, sock, snippet("qemu", sock, "--qemu", images.qemu[1]))
    # The port's controller is the only virtio device.
    assert "vchannel: port /dev/vport0p1" in console.text


@pytest.mark.parametrize(("balloon", "port"), [(True, "vport1p1"), (False, "vport0p1")])
def test_args_of_proxmox_fit_its_own_devices(tmp_path: Path, images: Images, balloon: bool, port: str) -> None:
    """Proxmox VE's balloon is at 0x3. Its disks are behind a bridge, each in the slot of its number plus one.

    The number in the port's name counts the virtio devices before the port, so it depends on the balloon.
    """
    sock = str(tmp_path / "sock")
    printed = snippet("proxmox", sock, "--vmid", "100", "--qemu", images.qemu[1])
    (line,) = (words for words in printed.splitlines() if words.startswith("qm set 100 --args "))
    *_, args = shlex.split(line)
    assert f"#   args: {args}" in printed
    assert f"/dev/{port}" in printed
    its_own = ["-device", "virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3"] if balloon else []
    its_own += [
        "-device", "pci-bridge,id=pci.3,chassis_nr=3,bus=pci.0,addr=0x5",
    ]  # fmt: skip
    for number, disk in enumerate((images.boot, images.system, images.data), start=9):
        its_own += [
            "-device", f"virtio-scsi-pci,id=virtioscsi{number},bus=pci.3,addr={number + 1:#x}",
            "-drive", f"file={disk},if=none,id=drive-scsi{number},format=raw,snapshot=on",
            "-device", f"scsi-hd,bus=virtioscsi{number}.0,channel=0,scsi-id=0,lun={number},drive=drive-scsi{number}",
        ]  # fmt: skip
    console = is_served(tmp_path, images, sock, f"{shlex.join(its_own)} {args}")
    assert f"vchannel: port /dev/{port}" in console.text
    for line in ("[synoboot]", "[sda]", "[sdb]"):
        assert line in console.text, line
