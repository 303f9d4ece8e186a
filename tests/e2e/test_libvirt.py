"""A domain made from the snippet, in a real libvirt, with a real kernel in it that is served."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.launched import Console, Images
from tests.e2e.libvirt import PATIENCE, Libvirt, needed, slots, virsh
from tests.serving import ENVIRONMENT, Serving, run_vhostcomm, until

SERIAL = "1234ABC567890"


@pytest.fixture
def folder(tmp_path: Path, images: Images) -> Path:
    """Of a libvirt's own files."""
    if "--qemu-data" in images.qemu:
        pytest.skip("libvirt can't tell this QEMU where its firmware is")
    made = tmp_path / "libvirt"
    made.mkdir()
    needed(made)
    return made


def overlay(folder: Path, image: Path) -> str:
    """An image to write to, on one that many guests share."""
    made = folder / f"{image.stem}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", made], check=True)
    return str(made)


def domain(folder: Path, images: Images, sock: str) -> Path:
    """The snippet, in a file as a user has it."""
    printed = run_vhostcomm(
        "snippet", "libvirt", "--guest", "nas", "--sock", f"nas={sock}", "--domain",
        "--boot", overlay(folder, images.boot), "--system", overlay(folder, images.system),
        "--data", overlay(folder, images.data), "--memory", "512M", "--accel", "tcg", "--net", "none",
        "--serial-console", folder / "console", "--emulator", images.qemu[1],
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    file = folder / "nas.xml"
    file.write_text(printed.stdout)
    return file


@pytest.mark.parametrize("mode", ["connect", "bind"])
def test_a_domain_from_the_snippet_is_served(tmp_path: Path, folder: Path, images: Images, mode: str) -> None:
    """`connect` is libvirt's word for a daemon that listens, `bind` for a libvirt that does."""
    sock, control = tmp_path / "sock", tmp_path / "control"
    address = str(sock) if mode == "connect" else f"connect:{sock}"
    file = domain(tmp_path, images, address)
    assert f'<source mode="{mode}" path="{sock}"' in file.read_text()
    console = Console(tmp_path / "console")
    with (
        Serving("--sock", f"nas={address}", "--guest-serial", SERIAL, "--control", control) as daemon,
        Libvirt(folder) as libvirt,
    ):
        libvirt.tell("define", file)
        libvirt.tell("start", "nas")
        daemon.patience = PATIENCE
        daemon.event("guest ready", guest="nas")
        assert SERIAL in console.says("vchannel: answer 5 guest_serial")
        console.says("vchannel: ready")
        assert libvirt.tell("domstate", "nas").strip() == "running"
        gone = subprocess.run(
            [*daemon.command[:3], "shutdown", "nas", "--wait", "60"],
            env=ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(control)}, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert gone.returncode == 0, gone.stderr
        until(lambda: libvirt.tell("domstate", "nas").strip() == "shut off", "the domain's end")
    for line in ("[synoboot]", "[sda]", "[sdb]", "Partition Version=8", "SYSLINUX", "reboot: Power down"):
        assert line in console.text, line
    console.kept_to_the_protocol()


def test_the_domain_is_the_machine_that_the_launcher_builds(tmp_path: Path, folder: Path, images: Images) -> None:
    """What libvirt makes of the domain, beside what `run` makes of the same flags: each PCI place, clock and port."""
    file = domain(tmp_path, images, str(tmp_path / "sock"))
    native = subprocess.run(
        [*virsh(folder), "domxml-to-native", "qemu-argv", "--xml", file],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert native.returncode == 0, native.stderr
    printed = run_vhostcomm(
        "run", "--dry-run", "--boot", images.boot, "--system", images.system, "--data", images.data, *images.qemu,
        "--accel", "tcg", "--net", "none", "--sock", f"nas={tmp_path}/sock",
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    ours = slots(printed.stdout)
    # Neither the genuine host nor libvirt 9.0 has the launcher's panic device.
    assert ours.pop("0x1e") == "pvpanic-pci"
    assert slots(native.stdout) == ours
    assert sorted(ours) == ["0x1.0x2", "0x1c", "0x3", "0x4", "0xa", "0xb", "0xc"]
    for words in (
        "-rtc base=utc,clock=vm,driftfix=slew",
        "-global kvm-pit.lost_tick_policy=discard",
        "-boot strict=on",
    ):
        assert words in native.stdout.replace("\\\n", "")
        assert words in printed.stdout
