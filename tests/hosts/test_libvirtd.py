"""A system's libvirtd beside the daemon's unit: the guest saved, restored, reverted, stopped, and over the host's reboot."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.launched import BOOT_TIMEOUT, Images
from tests.hosts.booted import CONFIG, PROGRAM, Booted
from tests.hosts.conftest import with_program
from tests.hosts.folders import ROOT, debian
from tests.needs import need
from tests.serving import until
from tests.systemd.test_units import drop_ins
from vhostcomm.systemd import units

LIBVIRT = (
    "systemd-sysv", "dbus", "udev", "python3", "procps", "libnss-systemd", "qemu-system-x86", "qemu-utils",
    "libvirt-daemon-system", "libvirt-clients",
)  # fmt: skip
DISKS = "/var/lib/libvirt/images"
SERVE = units.SERVE


@pytest.fixture(scope="module")
def booted_with_libvirt(
    bootable: None, images: Images, onefile: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    need("qemu-img")
    with with_program(debian("libvirt", LIBVIRT), onefile, tmp_path_factory.mktemp("machine")) as machine:
        for name in ("boot", "system", "data"):  # qcow2, which keeps snapshots
            target = machine.path(f"{DISKS}/{name}.qcow2")
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", getattr(images, name), target], check=True)
        yield machine


def virsh(machine: Booted, *words: str) -> str:
    return machine.run("virsh", *words).stdout.strip()


def state(machine: Booted) -> str:
    """The state of the guest, as the daemon reports it."""
    (guest,) = json.loads(machine.run(PROGRAM, "guests", "--json").stdout)
    return str(guest["state"])


def is_ready(machine: Booted) -> bool:
    return state(machine) == "ready" and virsh(machine, "domstate", "nas") == "running"


def served(machine: Booted, sock: str, drop_in: str, *, kvm: bool) -> None:
    """Start the service with a drop-in of its page, and the domain that the snippet prints."""
    machine.drop_in(SERVE, drop_in)
    machine.write(CONFIG, f'[serve]\nsocket_mode = "0660"\n[guests.nas]\nsock = "{sock}"\nserial = "1234ABC567890"\n')
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.systemctl("enable", "--now", SERVE)
    disks = [f"--{name}={DISKS}/{name}.qcow2" for name in ("boot", "system", "data")]
    printed = machine.run(
        PROGRAM, "snippet", "libvirt", "--config", CONFIG, "--guest", "nas", "--domain", *disks, "--accel", "tcg",
        "--memory", "384M", "--net", "none",
    ).stdout  # fmt: skip
    assert ('mode="connect"' in printed) is kvm
    machine.write("/root/nas.xml", printed)
    virsh(machine, "define", "/root/nas.xml")
    virsh(machine, "start", "nas")
    until(partial(is_ready, machine), "the guest", BOOT_TIMEOUT)


@pytest.fixture
def libvirtd(booted_with_libvirt: Booted) -> Iterator[Booted]:
    """A machine with libvirtd, without our domain and units before and afterwards."""
    machine = booted_with_libvirt
    yield machine
    machine.run("virsh", "destroy", "nas", check=False)
    machine.run("virsh", "undefine", "nas", "--managed-save", "--snapshots-metadata", check=False)
    machine.clear()


def served_at(machine: Booted, listens: str) -> None:
    """Start both with the pages' settings for the end that listens."""
    if listens == "vhostcomm":
        (drop_in,) = [text for unit, text in drop_ins() if unit == SERVE and text.strip() == "[Service]\nGroup=kvm"]
        served(machine, "/run/vhostcomm/nas", drop_in, kvm=True)
        owner = machine.run("stat", "--format=%U", "/run/vhostcomm/nas").stdout.strip()
        assert owner == "libvirt-qemu", "libvirt has given the socket to its QEMU, as the page says"
    else:
        (drop_in,) = [text for unit, text in drop_ins() if unit == SERVE and "User=libvirt-qemu" in text]
        (line,) = re.findall(
            r"^d /run/guests .*$", (ROOT / "docs/systemd.md").read_text().replace("`", "\n"), re.MULTILINE
        )
        machine.write("/etc/tmpfiles.d/vhostcomm.conf", line + "\n")
        machine.run("systemd-tmpfiles", "--create", "vhostcomm.conf")
        served(machine, "connect:/run/guests/nas", drop_in, kvm=False)


LISTENS = pytest.mark.parametrize("listens", ["vhostcomm", "libvirt"])


@LISTENS
def test_guest_survives_what_libvirt_does_with_it(libvirtd: Booted, listens: str) -> None:
    served_at(libvirtd, listens)
    for out, back in (
        (("managedsave", "nas"), ("start", "nas")),
        (("save", "nas", f"{DISKS}/saved"), ("restore", f"{DISKS}/saved")),
    ):
        virsh(libvirtd, *out)
        until(lambda: state(libvirtd) == "absent")
        virsh(libvirtd, *back)
        until(partial(is_ready, libvirtd), "the restored guest")
        assert libvirtd.run(PROGRAM, "call", "nas", "get_ip").returncode == 0
    virsh(libvirtd, "snapshot-create-as", "nas", "before")
    virsh(libvirtd, "snapshot-revert", "nas", "before")
    until(partial(is_ready, libvirtd), "the reverted guest")
    assert libvirtd.run(PROGRAM, "call", "nas", "get_ip").returncode == 0
    libvirtd.systemctl("restart", SERVE)
    until(partial(is_ready, libvirtd), "the guest with another daemon, whose socket is its own again")
    virsh(libvirtd, "shutdown", "nas")  # the power button, which neither this guest nor a genuine one obeys
    shut_down(libvirtd)


@LISTENS
def test_guest_is_suspended_and_resumed_around_a_reboot_of_the_host(libvirtd: Booted, listens: str) -> None:
    """The page's settings start the daemon before libvirt and its guests, and stop it after them."""
    served_at(libvirtd, listens)
    page = (ROOT / "docs/getting-started-libvirt.md").read_text()
    settings, order = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    libvirtd.write("/etc/default/libvirt-guests", settings)
    libvirtd.drop_in("libvirt-guests.service", order)
    libvirtd.systemctl("enable", "--now", "libvirtd.service", "libvirt-guests.service")
    libvirtd.reboot()
    until(partial(is_ready, libvirtd), "the resumed guest", BOOT_TIMEOUT)
    entered = {
        unit: int(libvirtd.show(unit)["ActiveEnterTimestampMonotonic"])
        for unit in (SERVE, "libvirtd.service", "libvirt-guests.service")
    }
    assert 0 < entered[SERVE] < entered["libvirtd.service"] < entered["libvirt-guests.service"]
    shut_down(libvirtd)


def shut_down(machine: Booted) -> None:
    assert "gone after" in machine.run(PROGRAM, "shutdown", "nas", "--wait", "50").stdout
    until(lambda: virsh(machine, "domstate", "nas") == "shut off")
