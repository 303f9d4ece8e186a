"""The Debian package on Debian 12 and 13, under a systemd that runs its units: installed, upgraded, removed, purged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.booted import CONFIG, Booted, guests
from tests.hosts.folders import ROOT
from tests.serving import fake_guest, until
from vhostcomm.systemd import units

SERVE = units.SERVE
PROGRAM = "/usr/bin/vhostcomm"


def build(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "tools.deb", folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (made,) = folder.glob("vhostcomm_*_all.deb")
    return made


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def package(bootable: None, built: Path) -> Path:
    """The package, for a machine that can be booted."""
    return built


@pytest.fixture(scope="session")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version. Every file in the archive of its program has another offset."""
    tree = tmp_path_factory.mktemp("newer") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    program, control = tree / "usr/bin/vhostcomm", tree / "DEBIAN/control"
    start, _, archive = program.read_bytes().partition(b"\n")
    program.write_bytes(start + b"\n" + b"#" * 4099 + archive)
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    made = tree.with_name("newer.deb")
    pack = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build"]
    subprocess.run([*pack, tree, made], check=True, stdout=subprocess.DEVNULL)
    return made


@pytest.fixture(params=["booted_once", "next_release"], ids=["bookworm", "trixie"])
def bare(request: pytest.FixtureRequest) -> Iterator[Booted]:
    """A machine without vhostcomm, before and afterwards."""
    machine: Booted = request.getfixturevalue(request.param)
    yield machine
    machine.run("dpkg", "--purge", "vhostcomm")
    machine.clear()


def install(machine: Booted, package: Path) -> str:
    """Install or upgrade a package as the README says; returns what apt, dpkg and the package's scripts print."""
    shutil.copy(package, machine.path("/tmp/vhostcomm.deb"))
    done = machine.run("apt-get", "install", "--yes", "--no-install-recommends", "/tmp/vhostcomm.deb")
    return done.stdout + done.stderr


def serve(machine: Booted, config: str = "", *names: str) -> None:
    machine.write(CONFIG, guests(config, *(names or ("nas",))))
    machine.systemctl("enable", "--now", SERVE)


def left(machine: Booted) -> set[str]:
    """Every path with our names, except systemd's own records."""
    found = machine.run(
        "find", "/etc", "/usr", "/var", "/run", "(", "-name", "*vhostcomm*", "-o", "-name", "vdsm_run*", "-o", "-name",
        "qemu-host*", "-o", "-name", "vchannel.lua", ")", "-not", "-path", "/run/systemd/*",
    ).stdout  # fmt: skip
    return set(found.split())


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == built.read_bytes()


@pytest.mark.needs("lintian")
def test_lintian_finds_nothing(built: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", built],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_installed_package_enables_nothing_and_purge_leaves_nothing(bare: Booted, package: Path) -> None:
    before = left(bare)
    install(bare, package)
    assert bare.systemctl("is-enabled", SERVE, check=False).stdout.strip() == "disabled"
    assert bare.show(SERVE)["ActiveState"] == "inactive"
    for program in ("vhostcomm", "qemu-host", "vdsm_run"):
        assert bare.run(f"/usr/bin/{program}", "--help").stdout, program
    assert bare.systemctl("start", SERVE, check=False).returncode
    assert "no guest to serve: add [guests.NAME]" in bare.said(SERVE)
    bare.systemctl("reset-failed", SERVE)
    serve(bare, '[serve]\nrecord = "/var/log/vhostcomm/{guest}.jsonl"\n')
    with fake_guest(bare.path("/run/vhostcomm/nas")) as guest:
        assert guest.serial()
        bare.run("dpkg", "--remove", "vhostcomm")
    assert bare.path(CONFIG).exists()
    assert bare.path("/var/log/private/vhostcomm").is_dir()
    assert not bare.path("/run/vhostcomm").exists(), "the daemon was stopped"
    bare.run("dpkg", "--purge", "vhostcomm")
    assert left(bare) == before


def test_tshark_has_the_dissector(bare: Booted, package: Path) -> None:
    """The dissector is in the folder for all users. tshark 4.4 loads no Lua as root, so another user runs it."""
    install(bare, package)
    shutil.copy(ROOT / "captures/boot-2022-04-25.jsonl", bare.path("/tmp"))
    bare.run(PROGRAM, "capture", "export", "/tmp/boot-2022-04-25.jsonl", "-o", "/tmp/boot.pcapng")
    bare.run("chmod", "0644", "/tmp/boot.pcapng")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent"]
    shown = bare.run(*user, "tshark", "-r", "/tmp/boot.pcapng", "-Y", 'vchannel.host_command == "GUEST_SERIAL"').stdout
    assert "answers 5 GUEST_SERIAL" in shown


def test_upgrade_under_a_guest_keeps_the_changed_configuration(bare: Booted, package: Path, newer: Path) -> None:
    install(bare, package)
    serve(bare)
    changed, old = bare.path(CONFIG).read_text(), bare.main_pid(SERVE)
    sock = bare.path("/run/vhostcomm/nas")
    with fake_guest(sock) as guest:
        assert guest.serial()
        install(bare, newer)
    assert bare.main_pid(SERVE) != old
    with fake_guest(sock) as guest:
        assert guest.serial()
    assert bare.path(CONFIG).read_text() == changed
    assert bare.systemctl("is-enabled", SERVE).stdout.strip() == "enabled"


def test_upgrade_that_rejects_the_configuration_keeps_the_old_daemon(bare: Booted, package: Path, newer: Path) -> None:
    install(bare, package)
    serve(bare)
    old, valid = bare.main_pid(SERVE), bare.path(CONFIG).read_text()
    with fake_guest(bare.path("/run/vhostcomm/nas")) as guest:
        assert guest.serial()
        bare.write(CONFIG, valid + "mistake = 1\n")
        begin = time.time()
        printed = install(bare, newer)
        assert bare.main_pid(SERVE) == old
        assert guest.serial(), "on the same connection"
        messages = [each["MESSAGE"] for each in bare.journal(SERVE, "--priority=err", f"--since=@{int(begin)}")]
        # The running daemon has noticed the change too.
        (error,) = (each for each in messages if "still runs the previous version" in each)
        assert "mistake" in error
        assert error.endswith(f"then: systemctl restart {SERVE}")
        assert error in printed
        # The old program needs parts of its file that it has not imported yet.
        bare.write(CONFIG, guests("", "nas", "attic"))
        bare.systemctl("reload", SERVE)
        until(lambda: bare.show(SERVE)["StatusText"].startswith("2 guests served"))
        assert guest.serial()
    bare.systemctl("restart", SERVE)
    assert bare.main_pid(SERVE) != old
    with fake_guest(bare.path("/run/vhostcomm/nas")) as guest:
        assert guest.serial()
