"""A new version of vhostcomm under guests that are connected or frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.hosts.booted import CONFIG, PROGRAM, Booted, guests
from tests.hosts.folders import ROOT
from tests.serving import FakeGuest, fake_guest, until
from vchannel import NEED_DATA, GuestCommand, HostCommand, Request, Response
from vhostcomm import __version__
from vhostcomm.systemd import units

SERVE: Final = units.SERVE
WHEELS: Final = "/srv/wheels"
ENVIRONMENT: Final = "/opt/wheel"
INSTALLED: Final = f"{ENVIRONMENT}/bin/vhostcomm"
NEXT: Final = f"{__version__}.post1"
FREEZE: Final = GuestCommand.FS_FREEZE
THAW: Final = GuestCommand.FS_UNFREEZE


def serve(machine: Booted, program: str = PROGRAM) -> Path:
    """Start the service of one guest; returns its socket."""
    machine.write(CONFIG, guests("", "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas", program=program)
    machine.systemctl("start", SERVE)
    return machine.path("/run/vhostcomm/nas")


def obey(guest: FakeGuest, command: int) -> None:
    """Answer the host's commands up to this one."""
    answered: object = None
    while answered != command:
        request = guest.next_request()
        guest.sock.sendall(guest.connection.send(request.reply(b"")))
        answered = request.command


def freeze(machine: Booted, guest: FakeGuest, program: str) -> None:
    machine.run("systemd-run", "--collect", "--unit=freeze", program, "freeze", "nas", "--timeout", "300")
    obey(guest, FREEZE)
    until(lambda: "frozen" in machine.run(program, "guests", "--json").stdout)


def test_new_version_answers_and_thaws_a_frozen_guest(machine: Booted) -> None:
    """The file is replaced and the service restarted: the new daemon answers the guest and thaws it."""
    sock = serve(machine)
    old = machine.main_pid(SERVE)
    with fake_guest(sock) as guest:
        guest.serial()
        freeze(machine, guest, PROGRAM)
        os.kill(old, signal.SIGKILL)  # unlike a stop, this leaves the guest frozen
    machine.run("sh", "-c", f"cp {PROGRAM} {PROGRAM}.new && mv {PROGRAM}.new {PROGRAM}")
    machine.systemctl("restart", SERVE)
    assert machine.main_pid(SERVE) != old
    with fake_guest(sock) as guest:
        assert guest.serial()
        obey(guest, THAW)
        until(lambda: '"thaw_owed": null' in machine.run(PROGRAM, "guests", "--json").stdout)


def until_the_end(guest: FakeGuest) -> tuple[int, list[int]]:
    """Obey the host until it closes the connection; returns how many answers have come, and the host's commands."""
    answers, commands = 0, []
    while True:
        while (event := guest.connection.next_event()) is not NEED_DATA:
            if isinstance(event, Response):
                answers += 1
            elif isinstance(event, Request):
                commands.append(int(event.command))
                guest.sock.sendall(guest.connection.send(event.reply(b"")))
        if not (data := guest.sock.recv(65536)):
            return answers, commands
        guest.connection.receive_data(data)


@pytest.fixture(scope="module")
def wheels(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of this version and the next one, and of their dependencies."""
    house, source = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("next") / "source"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-build-isolation",
        "--wheel-dir",
        house,
    ]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", ROOT, "pip"], check=True)
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "captures", "dist", "__pycache__"))
    version = source / "vhostcomm/__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', f'"{NEXT}"'))
    subprocess.run([*pip, "--no-deps", source], check=True)
    return house


@pytest.fixture
def environment(machine: Booted, wheels: Path) -> Iterator[Booted]:
    """A machine with this version in a Python environment."""
    shutil.copytree(wheels, machine.path(WHEELS))
    machine.run("python3", "-m", "venv", "--without-pip", ENVIRONMENT)
    pip(machine, f"vhostcomm=={__version__}")
    yield machine
    machine.run("rm", "-r", ENVIRONMENT, WHEELS)


def pip(machine: Booted, what: str) -> None:
    (itself,) = machine.path(WHEELS).glob("pip-*.whl")
    program = [f"{ENVIRONMENT}/bin/python", f"{WHEELS}/{itself.name}/pip", "install", "--quiet", "--no-index"]
    machine.run(*program, f"--find-links={WHEELS}", what)


def test_new_wheel_loses_no_question_of_a_frozen_guest(environment: Booted) -> None:
    """The old daemon answers while its files are replaced, and at its stop; then the guest is thawed."""
    machine = environment
    sock = serve(machine, INSTALLED)
    with fake_guest(sock) as guest:
        assert guest.serial()
        freeze(machine, guest, INSTALLED)
        pip(machine, f"vhostcomm=={NEXT}")
        assert NEXT in machine.run(INSTALLED, "--version").stdout
        assert guest.serial(), "on the same connection"
        asked = [guest.send(HostCommand.GUEST_SERIAL) for _ in range(40)]
        machine.systemctl("restart", "--no-block", SERVE)
        answers, commands = until_the_end(guest)
    assert answers == len(asked)
    assert commands[-1:] == [THAW]
    until(lambda: machine.show(SERVE)["ActiveState"] == "active")
    with fake_guest(sock) as guest:
        assert guest.serial()
        until(lambda: '"thaw_owed": null' in machine.run(INSTALLED, "guests", "--json").stdout)
