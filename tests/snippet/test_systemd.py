"""The systemd units that are printed for a guest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving import TIMEOUT, run_vhostcomm
from tests.snippet.test_snippet import FILE, refused
from vhostcomm.config.load import load
from vhostcomm.snippet.systemd import unit
from vhostcomm.systemd import units

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"
PROGRAM = str(Path(sys.executable).with_name("vhostcomm"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write every unit into a folder; return the paths of the instances by unit name."""
    folder, instances = tmp_path_factory.mktemp("units"), {}
    file = folder / "vhostcomm.toml"
    file.write_text(FILE)
    for each in units.NAMES:
        made = run_vhostcomm("snippet", "systemd", "-c", file, "--guest", "nas", "--unit", each, "--program", PROGRAM)
        assert made.returncode == 0, made.stderr
        (folder / each).write_text(made.stdout)
        instances[each] = folder / made.stderr.split("enable --now ")[1].split()[0]
    return instances


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", units.NAMES)
def test_the_snippet_is_a_valid_unit(printed: dict[str, Path], name: str) -> None:
    """systemd-analyze verifies the unit, together with the units that it names."""
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", printed[name]],
        capture_output=True, text=True, timeout=3 * TIMEOUT, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert PROGRAM in printed[name].with_name(name).read_text() or name.endswith(".socket")


OF_SERIAL = "02707f60-f946-5b1e-c5d0-ae5c6121ae60"
"""The UUID that is derived from the serial number 1234ABC567890."""

PLACE = "/opt/vhostcomm/bin/vhostcomm"


def remarks(*words: str | Path) -> list[str]:
    """Return the remarks on standard error, each with the lines to copy below it."""
    made = run_vhostcomm("snippet", "systemd", *words, "--program", PLACE)
    assert made.returncode == 0, made.stderr
    first, *others = made.stderr.removesuffix("\n").split("\nvhostcomm: ")
    return [first.removeprefix("vhostcomm: "), *others]


def lines_of(remark: str) -> list[str]:
    """Return the lines to copy below a remark."""
    _, *lines = remark.splitlines()
    assert all(line.startswith("    ") for line in lines), remark
    return [line.removeprefix("    ") for line in lines]


@pytest.fixture
def needs(tmp_path: Path) -> Callable[..., list[str]]:
    """Return the remarks for a file with this text, without the first, which names the unit's file."""

    def remarks(text: str, *, program: str = PLACE, file: str = units.CONFIG) -> list[str]:
        (tmp_path / "c.toml").write_text(text)
        config = load(tmp_path / "c.toml", environment={"RUNTIME_DIRECTORY": "/run/vhostcomm"})
        found = unit(config, config.guests[0], units.SERVE, executable=program, files=[Path(file)])
        assert found.remarks[0].startswith("save it as ")
        return list(found.remarks[1:])

    return remarks


def test_snippet_systemd_chooses_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text(FILE)
    of_file = run_vhostcomm("snippet", "systemd", "-c", file, "--guest", "nas")
    assert f"serve --config {file} --reload-on-change\n" in of_file.stdout
    assert "enable --now vhostcomm.service\n" in of_file.stderr
    one = remarks("--sock", UUID, "--guest-serial", "1234ABC567890")
    assert one[0].startswith(f"save it as /etc/systemd/system/vhostcomm@{UUID}.service, then:\n")
    assert lines_of(one[0]) == [f"systemctl daemon-reload && systemctl enable --now vhostcomm@{UUID}.service"]
    assert one[1].startswith(
        f"QEMU connects to /run/vhostcomm-{UUID}/{UUID}; put settings into /etc/vhostcomm/{UUID}.env"
    )
    assert lines_of(one[1]) == ["VHOSTCOMM_GUEST_SERIAL=1234ABC567890"]
    assert not one[2:]


@pytest.mark.parametrize("sock", ["nas=/srv/guests/nas", f"/srv/{UUID}", "tcp:127.0.0.1:1", "connect:/run/guests/nas"])
def test_a_socket_that_the_unit_of_one_guest_ignores_is_rejected(sock: str) -> None:
    for words in ((), ("--unit", units.SERVE_ONE), ("--unit", units.SOCKET_ONE)):
        why = refused("systemd", "--sock", sock, *words)
        assert why.startswith(f"--sock {sock}: the socket of vhostcomm@.")
        assert "/UUID: give --sock UUID or" in why  # not the UUID of a serial number that nobody has given
        assert why.endswith("give --sock UUID or the guest in a file with --config")
    assert "is fixed" in refused("qemu", "--sock", sock, "--unit", units.SERVE_ONE)


def test_the_remedy_names_the_uuid_of_a_given_serial_number() -> None:
    why = refused("systemd", "--sock", "nas=/srv/nas", "--guest-serial", "1234ABC567890")
    assert f"-{OF_SERIAL}/{OF_SERIAL}: give --sock {OF_SERIAL} or the guest in a file" in why


def test_another_uuid_than_that_of_the_socket_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    other = UUID.replace("d9", "d8")
    why = f"has another UUID, {other}: give the same in both, or leave out "
    for words in (), ("--unit", units.SOCKET_ONE):
        found = refused("systemd", "--sock", f"nas={UUID}", "--guest-uuid", other, *words)
        assert found == f"--sock nas={UUID}: --guest-uuid {why}--guest-uuid"
    monkeypatch.setenv("VHOSTCOMM_GUEST_UUID", other)
    assert refused("systemd", "--sock", UUID) == f"--sock {UUID}: VHOSTCOMM_GUEST_UUID {why}VHOSTCOMM_GUEST_UUID"


@pytest.mark.slow
def test_the_units_environment_has_every_setting_that_was_given() -> None:
    """Each is a line of an environment file, which can't have two assignments in a line."""
    flags = ("--host-mac", "02:11:32:00:00:01", "--cpu", "A,  My CPU, X86_64", "--log-level", "debug")
    settings = [
        "VHOSTCOMM_HOST_MAC=02:11:32:00:00:01",
        "VHOSTCOMM_CPU='A,  My CPU, X86_64'",
        "VHOSTCOMM_LOG_LEVEL=debug",
    ]
    _, own = remarks("--sock", UUID, *flags)
    assert own.partition("\n")[0].endswith(f"put settings into /etc/vhostcomm/{UUID}.env:")
    assert lines_of(own) == settings
    _, machine, disks = remarks("--sock", "nas=/srv/nas", "--unit", units.RUN, *flags)
    assert machine.startswith("/etc/vhostcomm/run-nas.env has the machine and the settings, such as:\n")
    assert lines_of(machine) == ['RUN="--sock nas=/srv/nas --boot synoboot.img --system system.img"', *settings]
    assert lines_of(disks) == ["chown --reference=/var/lib/vhostcomm-run-nas/ DISK"]
    _, _, name = remarks("--sock", f"nas={UUID}")
    assert name == f"that service names the guest {UUID}, not nas"


@pytest.mark.parametrize(("unit_name", "file"), [(units.SERVE_ONE, f"{UUID}.env"), (units.RUN, f"run-{UUID}.env")])
def test_a_secret_of_the_units_environment_is_not_shown(unit_name: str, file: str) -> None:
    flags = ("--unit", unit_name, "--control", "tcp:127.0.0.1:1", "--control-token", "0123456789abcdef")
    _, own, secret, *_ = remarks("--sock", UUID, *flags)
    assert lines_of(own)[-1] == "VHOSTCOMM_CONTROL=tcp:127.0.0.1:1"
    assert secret == f"set VHOSTCOMM_CONTROL_TOKEN in /etc/vhostcomm/{file} yourself"


def test_the_socket_of_a_launcher_is_one_word_of_its_flags() -> None:
    """systemd splits $RUN at blanks outside quotes, and reads backslashes in it."""
    _, machine, _ = remarks("--sock", "nas=/srv/my  nas", "--unit", units.RUN)
    assert lines_of(machine) == ["RUN=\"--sock 'nas=/srv/my  nas' --boot synoboot.img --system system.img\""]
    for path in "/srv/o'nas", '/srv/"nas"', "/srv/na\\s":
        why = refused("systemd", "--sock", f"nas={path}", "--unit", units.RUN)
        assert why.startswith(f"--sock nas={path}: {units.RUN} needs a path without quotes and backslashes")


def test_settings_that_the_unit_ignores_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text(FILE)
    flag = ("--host-mac", "02:11:32:00:00:01")
    for unit_name in (units.SERVE, units.SOCKET):
        why = refused("systemd", "-c", file, "--guest", "nas", "--unit", unit_name, *flag)
        assert why == f"--host-mac: vhostcomm.service reads only {file}: put the setting there"
    assert "--host-mac: vhostcomm@.socket has no settings" in refused(
        "systemd", "--sock", UUID, "--unit", units.SOCKET_ONE, *flag
    )


def test_a_socket_is_started_while_its_service_is_not(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text(FILE)
    first, second = remarks("-c", file, "--guest", "nas", "--unit", "vhostcomm-guest@.socket")
    (command,) = lines_of(first)
    assert command == (
        "systemctl daemon-reload && systemctl stop vhostcomm.service && "
        "systemctl enable --now vhostcomm-guest@nas.socket && systemctl start vhostcomm.service"
    )
    assert second.startswith("QEMU connects to /run/vhostcomm-sockets/nas, ")
    one, _ = remarks("--sock", UUID, "--unit", "vhostcomm@.socket")
    assert f"stop vhostcomm@{UUID}.service && systemctl enable --now vhostcomm@{UUID}.socket && " in one


def test_files_that_need_no_remark(needs: Callable[..., list[str]]) -> None:
    served = "[serve]\nrecord = '/var/log/vhostcomm/{guest}'"
    assert not needs(f"[guests.nas]\n[guests.two]\nsock = '/run/vhostcomm/2'\n{served}")


SERVE = "[guests.nas]\n[serve]\n"


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (
            "[guests.nas]\nsock = 'tcp:127.0.0.1:1'",
            "the socket of nas uses TCP, which the unit denies: PrivateNetwork=no",
        ),
        (
            "[guests.nas]\nsock = '/srv/guests/nas'",
            (
                "the socket of nas, /srv/guests/nas, is not below /run/vhostcomm: make the directory for a permanent user, "
                "with the last line in a drop-in:\n"
                "    useradd --system --user-group --no-create-home --shell /usr/sbin/nologin vhostcomm\n"
                "    install -d -o vhostcomm -m 0710 /srv/guests\n"
                "    ReadWritePaths=-/srv/guests"
            ),
        ),
        ("[guests.nas]\n[guests.two]\nsock = '/srv/2'", "the socket of two, /srv/2, is not below"),
        (
            "[guests.nas]\nsock = 'connect:/run/guests/nas'",
            (
                "QEMU's socket of nas, /run/guests/nas must be accessible to the service's user, which systemd creates at the start: "
                "use mode 0660, and its group as Group= in a drop-in"
            ),
        ),
        (
            "[guests.nas]\nsock = '/tmp/ours/nas'",
            "/tmp/ours/nas, is in /tmp, which the service can't see (PrivateTmp=)",
        ),
        ("[guests.nas]\nsock = 'connect:/home/a/nas'", "is in /home, which the service can't see (ProtectHome=)"),
        (
            SERVE + "socket_group = 'kvm'",
            "socket_group = kvm: the service's user can't change a file's group; set Group=kvm in",
        ),
        (SERVE + "record = '/srv/rec/{guest}'", "recordings are not in /var/log/vhostcomm: make the directory"),
        (SERVE + "record = '/root/{guest}'", "the recording is in /root, which the service can't see"),
        (
            SERVE + "control = 'tcp:127.0.0.1:1'\ncontrol_token = '0123456789abcdef'",
            "the control surface uses TCP, which",
        ),
        (SERVE + "qemu_host_api = '127.0.0.1:2210'", "qemu_host_api uses TCP, which the unit denies"),
        (SERVE + "watch = ['/run/guests']", "the sockets in /run/guests must be accessible to the service's user"),
        (SERVE + "watch = ['/home/guests']", "the watched directory is in /home"),
    ],
)
def test_remarks_on_the_needs_of_the_service(needs: Callable[..., list[str]], text: str, needed: str) -> None:
    (remark,) = needs(text)
    assert needed in remark


def test_remarks_for_tls_name_addresses_and_key(needs: Callable[..., list[str]]) -> None:
    files = "control_ca = '/etc/a'\ncontrol_cert = '/etc/b'\ncontrol_key = '/etc/c'\n"
    tcp, key = needs(SERVE + "control = 'tls:192.0.2.1:8471'\n" + files)
    assert tcp.startswith("the control surface uses TCP, which the unit denies")
    assert tcp.endswith("with the clients' addresses too in IPAddressAllow=")
    assert key.startswith(
        "the key /etc/c must be readable: owned by root, mode 0640, its group as SupplementaryGroups="
    )


def test_paths_that_services_do_not_see(needs: Callable[..., list[str]]) -> None:
    (remark,) = needs("[guests.nas]", program="/root/venv/bin/vhostcomm")
    assert remark.startswith("the program is in /root, which the service can't see (ProtectHome=): move it elsewhere")
    (remark,) = needs("[guests.nas]", file="/home/me/c.toml")
    assert remark.startswith("the configuration is in /home, which")


def test_one_guest_has_no_place_for_recordings() -> None:
    *_, remark = remarks("--sock", UUID, "--record", "/var/log/vhostcomm/a.jsonl")
    assert f"LogsDirectory=vhostcomm/{UUID} in a drop-in creates /var/log/vhostcomm/{UUID} for them" in remark
    assert len(remarks("--sock", UUID, "--record", f"/var/log/vhostcomm/{UUID}/a.jsonl")) == 2


@pytest.mark.needs("systemd-analyze")
def test_the_drop_ins_of_the_remarks_are_read_by_systemd(needs: Callable[..., list[str]], tmp_path: Path) -> None:
    """Paths may need quotes."""
    settings = []
    for place in ("/srv/guests", "/srv/a b", '/srv/50% "x"'):
        (remark,) = needs(f"[guests.nas]\nsock = '{place}/nas'")
        settings.append(lines_of(remark)[-1])
    assert settings[0] == "ReadWritePaths=-/srv/guests"
    text = units.text(units.SERVE, executable=PROGRAM) + "\n[Service]\n" + "\n".join(settings) + "\n"
    text += f"LogsDirectory=vhostcomm/{UUID}\n"
    (tmp_path / units.SERVE).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / units.SERVE)],
        capture_output=True, text=True, timeout=3 * TIMEOUT, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_configurations_without_a_unit() -> None:
    for unit_name in units.SERVE, units.SOCKET:
        for words in [], ["--sock", "nas=/run/nas"]:
            why = refused("systemd", *words, "--unit", unit_name)
            assert why.endswith("give it with --config; without a file, use --unit vhostcomm@.service --sock UUID")
    assert refused("systemd").endswith("give --config with a guest in it, or --sock nas=UUID")
    assert refused("qemu", "--unit", units.SERVE_ONE).endswith("or --sock nas=UUID")
    for kind in "systemd", "hookscript":
        assert "absolute path" in refused(kind, "--sock", UUID, "--program", "vhostcomm")


def test_unit_of_all_guests_rejects_settings_as_flags(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    file.write_text("[guests.nas]\n[guests.office]\n")
    words: list[str | Path] = ["snippet", "systemd", "--config", file, "--program", PLACE]
    made = run_vhostcomm(*words)
    assert (made.returncode, f"serve --config {file}" in made.stdout) == (0, True), made.stderr
    assert made.stdout == run_vhostcomm(*words, "--guest", "nas").stdout
    refusal = run_vhostcomm(*words, "--host-serial", "1234ABC567890")
    assert (refusal.returncode, refusal.stdout) == (2, "")
    assert "--host-serial: vhostcomm.service reads" in refusal.stderr
    one = run_vhostcomm(*words, "--unit", units.SERVE_ONE)
    assert (one.returncode, "name one of the guests with --guest: nas, office" in one.stderr) == (2, True)
