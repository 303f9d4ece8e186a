"""The launcher's unit under a systemd that runs it, with a real QEMU in it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.hosts.booted import PROGRAM, Booted, uid
from tests.serving import until
from tests.systemd.test_units import drop_ins
from vhostcomm.systemd import units

RUN = "--boot boot.img --system system.img --accel tcg --memory 64M --net none --grace 4"
"""A machine that boots from an empty disk: it asks nothing, and ignores every command. A stop doesn't wait for it."""


def install(machine: Booted, guest: str, words: str = RUN) -> str:
    """Install a launcher's unit as its page describes; returns the service."""
    machine.install(units.RUN, "--sock", f"{guest}=/run/vhostcomm/{guest}")
    machine.write(f"/etc/vhostcomm/run-{guest}.env", f"RUN={words}\n")
    folder = f"/var/lib/vhostcomm-run-{guest}"
    machine.run("install", "-d", "-m", "0700", folder)
    machine.run("truncate", "-s", "8M", f"{folder}/boot.img", f"{folder}/system.img")
    machine.run("chown", f"--reference={folder}/", f"{folder}/boot.img", f"{folder}/system.img")
    return f"vhostcomm-run@{guest}.service"


def processes(machine: Booted, service: str) -> tuple[int, int]:
    """The launcher and its QEMU."""
    launcher, qemu = machine.pids(service)
    assert Path(f"/proc/{qemu}/comm").read_text().startswith("qemu-system")
    return launcher, qemu


def test_launchers_have_users_of_their_own(machine: Booted) -> None:
    """This includes guests whose name can't be part of a user's name. No launcher can signal or read another."""
    services = {guest: install(machine, guest) for guest in ("nas", "attic", "with.dot", "of-more-than-21-letters")}
    machine.systemctl("start", *services.values())  # ready when QEMU runs
    found = {guest: processes(machine, service) for guest, service in services.items()}
    users = {guest: {uid(each) for each in both} for guest, both in found.items()}
    assert all(len(each) == 1 for each in users.values()), users
    assert len(set.union(*users.values())) == len(services)
    assert set(machine.run(PROGRAM, "guests").stdout.split()) >= set(services)
    for guest, (user,) in {each: tuple(which) for each, which in users.items()}.items():
        another = next(each for each in services if each != guest)
        victim = machine.show(services[another])["MainPID"]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        for words in (
            ["kill", "-0", victim],
            ["cat", f"/proc/{victim}/environ"],
            ["cat", f"/var/lib/private/vhostcomm-run-{another}/system.img"],
            [PROGRAM, "guests", "--control", f"/run/vhostcomm-run-{another}/control/{another}.sock"],
        ):
            tried = machine.run(*as_user, *words, check=False)
            assert tried.returncode, words
            assert "ermi" in tried.stderr, tried.stderr
        own = machine.show(services[guest])["MainPID"]
        assert machine.run(*as_user, "kill", "-0", own).returncode == 0


def test_template_fails_for_a_name_that_is_no_user_name(machine: Booted) -> None:
    """The snippet for this guest is the remedy."""
    install(machine, "nas")
    service = "vhostcomm-run@with.dot.service"
    assert machine.systemctl("start", service, check=False).returncode
    assert machine.show(service)["Result"] == "resources"
    machine.systemctl("stop", service)
    install(machine, "with.dot")
    machine.systemctl("start", service, check=False)
    assert machine.show(service)["ActiveState"] == "active", machine.said(service)


def test_guest_that_ignores_everything_is_stopped_in_stages(machine: Booted) -> None:
    service = install(machine, "nas")
    machine.systemctl("start", service)
    _, qemu = processes(machine, service)
    descriptor = os.pidfd_open(qemu)
    machine.systemctl("stop", service)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, 0)
    os.close(descriptor)
    said = machine.said(service)
    assert "the power button" in said
    assert "QMP quit" in said
    shown = machine.show(service)
    assert (shown["ActiveState"], shown["Result"], shown["NRestarts"]) == ("inactive", "success", "0")


def test_killed_launcher_ends_its_qemu_and_both_start_again(machine: Booted) -> None:
    service = install(machine, "nas")
    machine.drop_in("vhostcomm-run@.service", "[Service]\nRestartSec=0\n")
    machine.systemctl("start", service)
    launcher, qemu = processes(machine, service)
    descriptor = os.pidfd_open(qemu)
    os.kill(launcher, signal.SIGKILL)
    until(
        lambda: machine.show(service)["NRestarts"] == "1" and machine.show(service)["ActiveState"] == "active", "it", 60
    )
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, 0)
    os.close(descriptor)
    assert processes(machine, service) != (launcher, qemu)


@pytest.mark.parametrize(("words", "status", "says"), [("", 2, "--boot"), (f"{RUN} --mistake", 2, "--mistake")])
def test_invalid_launch_is_not_repeated(machine: Booted, words: str, status: int, says: str) -> None:
    service = install(machine, "nas", words)
    assert machine.systemctl("start", service, check=False).returncode
    shown = machine.show(service)
    assert (shown["ActiveState"], shown["ExecMainStatus"], shown["NRestarts"]) == ("failed", str(status), "0")
    assert says in machine.said(service)


def test_instance_without_a_guest_fails_with_one_message(machine: Booted) -> None:
    """One message names what the launcher needs. Another guest's launcher is not affected."""
    neighbour = install(machine, "nas")
    machine.systemctl("start", neighbour)
    running, service = processes(machine, neighbour), "vhostcomm-run@nsa.service"
    assert machine.systemctl("start", service, check=False).returncode
    shown = machine.show(service)
    assert (shown["ActiveState"], shown["ExecMainStatus"], shown["NRestarts"]) == ("failed", "2", "0")
    (error,) = machine.journal(service, "--identifier=vhostcomm")
    assert error["MESSAGE"].endswith("RUN= in /etc/vhostcomm/run-NAME.env")
    assert processes(machine, neighbour) == running


def test_disks_elsewhere_with_the_drop_in_of_the_documentation(machine: Booted) -> None:
    service = install(machine, "nas", RUN.replace("boot.img", "/srv/disks/boot.img", 1))
    machine.run("install", "-d", "-m", "0700", "/srv/disks")
    machine.run("truncate", "-s", "8M", "/srv/disks/boot.img")
    ((_, text),) = [(unit, text) for unit, text in drop_ins() if unit == service]
    machine.drop_in(service, text)
    machine.systemctl("start", service)
    assert uid(processes(machine, service)[1]) == 0
