"""The serving units under a systemd that runs them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.authority import Authority
from tests.hosts.booted import CONFIG, PROGRAM, Booted, guests, status, uid
from tests.hosts.folders import ROOT
from tests.serving import fake_guest, until
from tests.systemd.test_units import drop_ins
from vchannel import HostCommand
from vhostcomm.systemd import units

UUIDS = ["d990d22a-e971-ef5f-a7b3-e6374e496b34", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"]
SERVE = units.SERVE
TLS_GROUP = "vhostcomm-tls"
DYNAMIC = range(61184, 65520)
"""The user ids that systemd gives to dynamic users."""


def serve(machine: Booted, config: str, *names: str) -> None:
    """Start the unit of all guests; systemctl returns when it is ready."""
    machine.write(CONFIG, guests(config, *names))
    machine.install(SERVE, "--config", CONFIG, "--guest", names[0])
    machine.systemctl("start", SERVE)


def test_ready_status_reload_and_stop(machine: Booted) -> None:
    serve(machine, "", "nas", "attic")
    sock = machine.path("/run/vhostcomm/nas")
    assert sock.is_socket(), "its sockets are there when systemctl start returns"
    assert machine.show(SERVE)["StatusText"].startswith("2 guests served")
    with fake_guest(sock) as guest:
        guest.serial()
        until(lambda: "1 ready" in machine.show(SERVE)["StatusText"])
        machine.write(CONFIG, guests("", "nas", "attic", "third"))
        machine.systemctl("reload", SERVE)
        until(lambda: machine.show(SERVE)["StatusText"].startswith("3 guests served"))
        assert machine.path("/run/vhostcomm/third").is_socket()
        machine.write(CONFIG, guests("", "nas", "attic") + "mistake = 1\n")
        machine.systemctl("reload", SERVE, check=False)
        until(lambda: "mistake" in machine.show(SERVE)["StatusText"])
        assert guest.serial(), "the connected guest is still served"
    warnings = machine.said(SERVE, "--priority=warning", "--identifier=vhostcomm")
    assert "reload rejected" in warnings
    assert "guest connected" not in warnings
    assert "guest connected" in machine.said(SERVE, "--identifier=vhostcomm")
    machine.systemctl("stop", SERVE)
    shown = machine.show(SERVE)
    assert (shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == ("inactive", "success", "0")
    assert not sock.parent.exists()


def test_user_folders_and_sandbox(machine: Booted) -> None:
    serve(machine, '[serve]\nrecord = "/var/log/vhostcomm/{guest}.jsonl"\n', "nas")
    pid = machine.main_pid(SERVE)
    user = uid(pid)
    assert user in DYNAMIC
    facts = status(pid)
    assert (int(facts["CapEff"], 16), facts["NoNewPrivs"], facts["Seccomp"]) == (0, "1", "2")
    for place, mode in {
        "/run/vhostcomm": 0o710,
        "/run/vhostcomm/nas": 0o600,
        "/run/vhostcomm/control.sock": 0o600,
        "/var/lib/private/vhostcomm": 0o700,
        "/var/log/private/vhostcomm/nas.jsonl": 0o600,
    }.items():
        found = machine.path(place).stat()
        assert (place, found.st_uid, stat.S_IMODE(found.st_mode)) == (place, user, mode)
    file, moved = (machine.path(f"/var/log/private/vhostcomm/nas.jsonl{end}") for end in ("", ".1"))
    file.rename(moved)
    (rotated,) = re.findall(r"^ +exec systemctl (kill .*)$", (ROOT / "docs/systemd.md").read_text(), re.MULTILINE)
    machine.systemctl(*rotated.split())
    until(file.exists)
    exposure = machine.run("systemd-analyze", "security", "--threshold=10", SERVE, check=False)
    assert exposure.returncode == 0, exposure.stdout
    assert machine.run("systemd-analyze", "security", "--threshold=1", SERVE, check=False).returncode
    # `vhostcomm guests` as the unit's user, without a session
    found_by_itself = machine.run("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", PROGRAM, "guests")
    assert "nas" in found_by_itself.stdout


def test_services_of_uuids_have_users_of_their_own(machine: Booted) -> None:
    for each in UUIDS:
        machine.install(units.SERVE_ONE, "--sock", each)
        machine.systemctl("start", f"vhostcomm@{each}.service")
    serve(machine, "", "nas")
    users = {uid(machine.main_pid(f"vhostcomm@{each}.service")) for each in UUIDS} | {uid(machine.main_pid(SERVE))}
    assert len(users) == 3
    for each in UUIDS:
        with fake_guest(machine.path(f"/run/vhostcomm-{each}/{each}")) as guest:
            assert guest.ask(HostCommand.GUEST_UUID) == each.encode() + b"\0"
    assert len(machine.run(PROGRAM, "guests").stdout.splitlines()) == 1 + len(UUIDS) + 1


def test_watchdog_restarts_a_stopped_daemon(machine: Booted) -> None:
    serve(machine, "", "nas")
    machine.drop_in(SERVE, "[Service]\nWatchdogSec=2\nRestartSec=0\n")
    machine.systemctl("restart", SERVE)
    pid = machine.main_pid(SERVE)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: machine.show(SERVE)["NRestarts"] == "1" and machine.show(SERVE)["ActiveState"] == "active", "it", 60)
    assert machine.main_pid(SERVE) != pid
    assert "Watchdog timeout" in machine.said(SERVE)
    with fake_guest(machine.path("/run/vhostcomm/nas")) as guest:
        assert guest.serial()


@pytest.mark.parametrize(
    ("config", "drop_in", "status", "says"),
    [
        ("mistake = 1\n", "", 2, "mistake"),
        ('[guests.tcp]\nsock = "tcp:127.0.0.1:12345"\n', "", 78, "RestrictAddressFamilies=AF_INET AF_INET6"),
        ('[guests.far]\nsock = "/nowhere/far"\n', "", 78, "make its directory: install -d"),
        ("", "[Service]\nDynamicUser=no\nUser=nobody-has-this\n", 217, "status=217/USER"),
        ("", "[Service]\nDynamicUser=no\nUser=root\nGroup=nobody-has-this\n", 216, "status=216/GROUP"),
        ("", "[Service]\nReadWritePaths=/nowhere\n", 226, "/nowhere"),
    ],
)
def test_failing_start_is_not_repeated(machine: Booted, config: str, drop_in: str, status: int, says: str) -> None:
    machine.write(CONFIG, guests("", "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.write(CONFIG, guests(config, "nas"))
    machine.drop_in(SERVE, drop_in)
    begin = time.time()
    assert machine.systemctl("start", SERVE, check=False).returncode
    shown = machine.show(SERVE)
    assert (shown["ActiveState"], shown["ExecMainStatus"], shown["NRestarts"]) == ("failed", str(status), "0")
    assert says in machine.said(SERVE, f"--since=@{int(begin)}")


def test_tcp_works_with_its_drop_in(machine: Booted) -> None:
    machine.drop_in(SERVE, next(text for unit, text in drop_ins() if "PrivateNetwork=no" in text))
    serve(machine, '[guests.tcp]\nsock = "tcp:127.0.0.1:12345"\nserial = "1234ABC567890"\n', "nas")
    probed = machine.run(PROGRAM, "probe", "--sock", "tcp:127.0.0.1:12345").stdout
    assert "1234ABC567890" in probed


def test_tls_works_with_its_drop_in(machine: Booted, tmp_path: Path) -> None:
    """Root owns the key, and the group that the page names may read it."""
    machine.drop_in(SERVE, next(text for unit, text in drop_ins() if f"SupplementaryGroups={TLS_GROUP}" in text))
    authority = Authority.new(tmp_path / "ca")
    files = [authority.host("one", "127.0.0.1"), authority.host("admin", "admin.example")]
    machine.path("/etc/vhostcomm").mkdir(exist_ok=True)
    for each in {path for one in files for path in (one.ca, one.cert, one.key)}:
        shutil.copy(each, machine.path("/etc/vhostcomm"))
    machine.run("groupadd", "--force", "--system", TLS_GROUP)
    machine.run("chgrp", TLS_GROUP, "/etc/vhostcomm/one.key")
    machine.run("chmod", "0640", "/etc/vhostcomm/one.key")
    where = "tls:127.0.0.1:12345"
    one, admin = (
        {
            f"control_{kind}": f"/etc/vhostcomm/{file}"
            for kind, file in (("ca", "ca.crt"), ("cert", f"{name}.crt"), ("key", f"{name}.key"))
        }
        for name in ("one", "admin")
    )
    settings = "".join(f'{name} = "{value}"\n' for name, value in {"control": where, **one}.items())
    serve(machine, f"[serve]\n{settings}", "nas")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in admin.items()]
    assert "nas" in machine.run(PROGRAM, "guests", "--control", where, *flags).stdout


def test_every_drop_in_of_the_documentation_starts(machine: Booted) -> None:
    """The test first makes what the drop-in's paragraph requires."""
    machine.run("sh", "-c", "getent group kvm || groupadd --system kvm")
    machine.run("sh", "-c", "id libvirt-qemu || useradd --system --gid kvm --no-create-home libvirt-qemu")
    tried = [text for unit, text in drop_ins() if unit == SERVE]
    assert len(tried) > 3
    machine.run("groupadd", "--force", "--system", TLS_GROUP)
    for text in tried:
        machine.clear()
        machine.drop_in(SERVE, text)
        serve(machine, '[serve]\nsocket_mode = "0660"\n', "nas")
        if group := re.search(r"^Group=(.*)$", text, re.MULTILINE):
            number = int(machine.run("getent", "group", group[1]).stdout.split(":")[2])
            folder, sock = machine.path("/run/vhostcomm").stat(), machine.path("/run/vhostcomm/nas").stat()
            assert (folder.st_gid, sock.st_gid, stat.S_IMODE(sock.st_mode)) == (number, number, 0o660)


def test_socket_of_systemd_outlives_the_daemon(machine: Booted) -> None:
    machine.write(CONFIG, guests("", "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.install(units.SOCKET, "--config", CONFIG, "--guest", "nas")
    machine.systemctl("start", "vhostcomm-guest@nas.socket")
    sock = machine.path("/run/vhostcomm-sockets/nas")
    with fake_guest(sock) as guest:  # which starts the service
        assert guest.serial()
        first = machine.main_pid(SERVE)
        machine.systemctl("restart", SERVE)
        with fake_guest(sock) as again:
            assert again.serial()
    assert machine.main_pid(SERVE) != first
    machine.systemctl("stop", SERVE)
    assert sock.is_socket()
    with fake_guest(sock) as guest:
        assert guest.serial()


def test_start_limit_ends_the_starts_by_a_waiting_qemu(machine: Booted) -> None:
    """A QEMU that waits at systemd's socket starts an invalid service up to the limit. The remedy works."""
    machine.write(CONFIG, guests("", "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.install(units.SOCKET, "--config", CONFIG, "--guest", "nas")
    machine.write(CONFIG, guests("mistake = 1\n", "nas"))
    machine.systemctl("start", "vhostcomm-guest@nas.socket")
    with fake_guest(machine.path("/run/vhostcomm-sockets/nas")):
        until(lambda: machine.show("vhostcomm-guest@nas.socket")["Result"] == "service-start-limit-hit", "it", 60)
    machine.write(CONFIG, guests("", "nas"))
    machine.systemctl("reset-failed", SERVE, "vhostcomm-guest@nas.socket")
    machine.systemctl("start", "vhostcomm-guest@nas.socket", SERVE)
    with fake_guest(machine.path("/run/vhostcomm-sockets/nas")) as guest:
        assert guest.serial()


def test_socket_of_another_process_is_retried(machine: Booted) -> None:
    """The interval is RestartSec=, even while a QEMU waits at another guest's socket that systemd holds."""
    machine.write(CONFIG, guests("", "nas", "attic"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.install(units.SOCKET, "--config", CONFIG, "--guest", "nas")
    machine.drop_in(SERVE, "[Service]\nRestartSec=2\nReadWritePaths=/srv\nDynamicUser=no\nUser=root\n")
    taken = f'[guests.attic]\nsock = "/srv/attic"\n[guests.nas]\nsock = "{units.RUNTIME}/nas"\n'
    machine.write(CONFIG, taken)
    begin = time.time()
    machine.systemctl("start", "vhostcomm-guest@nas.socket")
    with ExitStack() as other:
        other.callback(machine.systemctl, "stop", "other.service")
        machine.run("systemd-run", "--unit=other", PROGRAM, "serve", "--sock", "/srv/attic", "--control", "none")
        until(lambda: machine.path("/srv/attic").is_socket())
        with fake_guest(machine.path("/run/vhostcomm-sockets/nas")) as guest:
            until(lambda: int(machine.show(SERVE)["NRestarts"]) >= 3, "a third try", 60)
            said = machine.said(SERVE, f"--since=@{int(begin)}")
            assert "status=1/FAILURE" in said
            starts = said.count("another process already serves it")
            assert starts in {3, 4}, "QEMU's waiting connection causes no start in between"
            other.close()
            assert guest.serial(), "the guest is served when the other process has ended"


def test_socket_unit_without_a_guest_causes_one_warning(machine: Booted) -> None:
    """The warning names the guests of the file, which are served."""
    machine.write(CONFIG, guests("", "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    machine.install(units.SOCKET, "--config", CONFIG, "--guest", "nas")
    machine.systemctl("start", "vhostcomm-guest@nas.socket", "vhostcomm-guest@nsa.socket")
    with fake_guest(machine.path("/run/vhostcomm-sockets/nas")) as guest:
        assert guest.serial()
    warnings = [each["MESSAGE"] for each in machine.journal(SERVE, "--priority=warning", "--identifier=vhostcomm")]
    assert len([each for each in warnings if "'nsa', but the file has no such guest, only nas" in each]) == 1, warnings


def test_second_service_for_a_socket_waits_for_the_first(machine: Booted) -> None:
    """Each start of the second logs one message with the remedy. The first still serves its guest."""
    services = [f"vhostcomm@{each}.service" for each in UUIDS]
    for uuid, service in zip(UUIDS, services, strict=True):
        machine.install(units.SERVE_ONE, "--sock", uuid)
        command = f"ExecStart={PROGRAM} serve --sock nas=/srv/nas"
        place = "DynamicUser=no\nUser=root\nReadWritePaths=/srv"
        machine.drop_in(service, f"[Service]\nRestartSec=1\n{place}\nExecStart=\n{command}\n")
    first, second = services
    begin = time.time()
    machine.systemctl("start", first)
    with fake_guest(machine.path("/srv/nas")) as guest:
        assert guest.serial()
        assert machine.systemctl("start", second, check=False).returncode
        until(lambda: int(machine.show(second)["NRestarts"]) > 1)
        errors = machine.journal(second, "--priority=err", "--identifier=vhostcomm", f"--since=@{int(begin)}")
        assert len({each["_PID"] for each in errors}) == len(errors) > 1, "one for each start"
        for each in errors:
            assert "/srv/nas: another process already serves it" in each["MESSAGE"]
            assert "stop it, or choose another socket" in each["MESSAGE"]
        assert guest.serial(), "on the same connection"
    machine.systemctl("stop", first)
    until(lambda: machine.show(second)["ActiveState"] == "active", "the second", 60)
    with fake_guest(machine.path("/srv/nas")) as guest:
        assert guest.serial()


def test_socket_in_the_folder_of_another_service_is_rejected(machine: Booted) -> None:
    """The second service's user may not write there: one message reports it, and the start is not repeated."""
    first, second = (f"vhostcomm@{each}.service" for each in UUIDS)
    for each in UUIDS:
        machine.install(units.SERVE_ONE, "--sock", each)
    begin = time.time()
    machine.systemctl("start", first)
    sock = f"/run/vhostcomm-{UUIDS[0]}/{UUIDS[0]}"
    machine.drop_in(second, f"[Service]\nExecStart=\nExecStart={PROGRAM} serve --sock {sock}\n")
    with fake_guest(machine.path(sock)) as guest:
        assert guest.serial()
        assert machine.systemctl("start", second, check=False).returncode
        (error,) = machine.journal(second, "--priority=err", "--identifier=vhostcomm", f"--since=@{int(begin)}")
        assert f"/run/vhostcomm-{UUIDS[0]} must be writable for uid " in error["MESSAGE"]
        own = f"/run/vhostcomm-{UUIDS[1]}/{UUIDS[0]}"
        assert error["MESSAGE"].endswith(f"choose another directory; this user can use {own}")
        shown = machine.show(second)
        assert (shown["ActiveState"], shown["ExecMainStatus"], shown["NRestarts"]) == ("failed", "78", "0")
        assert guest.serial(), "on the same connection"
