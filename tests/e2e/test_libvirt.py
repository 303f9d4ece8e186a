"""A domain made from the snippet, in a real libvirt, with a real kernel."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.launched import Console, Images
from tests.e2e.libvirt import TIMEOUT, Libvirt, needed, slots, virsh, with_users
from tests.serving import ENVIRONMENT, Serving, run_vhostcomm, until

SERIAL = "1234ABC567890"


@pytest.fixture
def folder(short_path: Path, images: Images) -> Path:
    """The folder for libvirt's files."""
    if "--qemu-data" in images.qemu:
        pytest.skip("libvirt can't tell this QEMU where its firmware is")
    made = short_path / "libvirt"
    made.mkdir()
    needed(made)
    return made


def copied(folder: Path, image: Path) -> str:
    """Copy an image for writing; its holes stay holes."""
    made = folder / image.name
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, made], check=True)
    return str(made)


def domain(folder: Path, images: Images, sock: str) -> Path:
    """Write a domain with the printed snippet into a file, as a user does."""
    printed = run_vhostcomm(
        "snippet", "libvirt", "--guest", "nas", "--sock", f"nas={sock}", "--domain",
        "--boot", copied(folder, images.boot), "--system", copied(folder, images.system),
        "--data", copied(folder, images.data), "--memory", "512M", "--accel", "tcg", "--net", "none",
        "--serial-console", folder / "console", "--emulator", images.qemu[1],
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    file = folder / "nas.xml"
    file.write_text(printed.stdout)
    return file


@pytest.mark.parametrize("mode", ["connect", "bind"])
def test_a_domain_from_the_snippet_is_served(tmp_path: Path, folder: Path, images: Images, mode: str) -> None:
    """In libvirt's terms, with `connect` the daemon listens, with `bind` libvirt does."""
    sock, control = tmp_path / "sock", tmp_path / "control"
    address = str(sock) if mode == "connect" else f"connect:{sock}"
    file = domain(tmp_path, images, address)
    assert f'<source mode="{mode}" path="{sock}"' in file.read_text()
    console = Console(tmp_path / "console")
    with (
        Serving("--sock", f"nas={address}", "--guest-serial", SERIAL, "--control", control) as daemon,
        Libvirt(folder) as libvirt,
    ):
        libvirt.run("define", file)
        libvirt.run("start", "nas")
        daemon.timeout = TIMEOUT
        daemon.event("guest ready", guest="nas")
        assert SERIAL in console.says("vchannel: answer 5 guest_serial")
        console.says("vchannel: ready")
        assert libvirt.run("domstate", "nas").strip() == "running"
        gone = subprocess.run(
            [*daemon.command[:3], "shutdown", "nas", "--wait", "60"],
            env=ENVIRONMENT | {"VHOSTCOMM_CONTROL": str(control)}, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert gone.returncode == 0, gone.stderr
        until(lambda: libvirt.run("domstate", "nas").strip() == "shut off", "the domain's end")
    for line in ("[synoboot]", "[sda]", "[sdb]", "Partition Version=8", "SYSLINUX", "reboot: Power down"):
        assert line in console.text, line
    console.kept_to_the_protocol()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that libvirt's user may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="vhostcomm-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.any_qemu
def test_roots_libvirt_connects_by_the_group(public: Path, images: Images) -> None:
    """As the snippet's remark says, its QEMU runs as libvirt-qemu in the group kvm, and needs a running daemon at its start."""
    if os.geteuid() != 0:
        pytest.skip("root's libvirt needs root")
    if "--qemu-data" in images.qemu:
        pytest.skip("libvirt can't tell this QEMU where its firmware is")
    root = public / "libvirt"
    root.mkdir()
    kvm = with_users(root)
    needed(root, root=True)
    sock = public / "run" / "nas"
    file = domain(public, images, str(sock))
    served = ["--sock", f"nas={sock}", "--socket-mode", "0660", "--socket-group", str(kvm), "--control", "none"]
    environment = ENVIRONMENT | {"RUNTIME_DIRECTORY": str(sock.parent)}
    with Libvirt(root, root=True) as libvirt:
        assert f"unable to stat: {sock}" in libvirt.refuses("create", file)
        with Serving(*served, env=environment) as daemon:
            assert (stat.S_IMODE(sock.parent.stat().st_mode), sock.parent.stat().st_gid) == (0o710, kvm)
            libvirt.run("create", file)
            daemon.timeout = TIMEOUT
            daemon.event("guest ready", guest="nas")
            owner = (public / "console").stat().st_uid
            assert user_name(root, owner) == "libvirt-qemu"
        # libvirt had given the first socket to its user. The next socket is accessible to QEMU only by its group.
        with Serving(*served, env=environment) as daemon:
            assert sock.stat().st_uid == 0
            daemon.event("guest connected", guest="nas")


def user_name(root: Path, number: int) -> str:
    """Return a user's name from the passwd file that this libvirt reads."""
    return next(
        line.split(":")[0] for line in (root / "passwd").read_text().splitlines() if line.split(":")[2] == str(number)
    )


def test_the_domain_is_the_machine_that_the_launcher_builds(tmp_path: Path, folder: Path, images: Images) -> None:
    """libvirt's QEMU command for the domain has the same PCI addresses, clock and port as that of `run` with the same flags."""
    file = domain(tmp_path, images, str(tmp_path / "sock"))
    native = subprocess.run(
        [*virsh(folder), "domxml-to-native", "qemu-argv", "--xml", file],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
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
