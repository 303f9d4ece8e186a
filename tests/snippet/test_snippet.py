"""Printed snippets, and errors."""

from __future__ import annotations

import io
import os
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cyclopts import CycloptsError

from tests.serving import ENVIRONMENT, run_vhostcomm
from vhostcomm.cli.app import app
from vhostcomm.cli.flags import USED, USED_BY_PROXMOX, USED_BY_SCRIPT
from vhostcomm.config.address import ListenTcp
from vhostcomm.config.identity import flag_of
from vhostcomm.config.load import load
from vhostcomm.config.models import SECTIONS, Config, settings
from vhostcomm.errors import QemuError, UsageError, VhostcommError
from vhostcomm.qemu.capabilities import Reconnect
from vhostcomm.snippet.parts import Spelling, qmp_remark
from vhostcomm.snippet.qemu import arguments

FILE = """\
[host]
serial = "HOST567890123"
[guests.nas]
sock = "/run/guests/nas"
serial = "1234ABC567890"
[guests.office]
sock = "connect:/run/guests/office"
serial = "1234ABC567891"
"""

KINDS = ("qemu", "libvirt", "proxmox", "hookscript", "compose", "systemd")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "vhostcomm.toml"
    made.write_text(FILE)
    return made


def printed(*words: str | Path) -> str:
    """Return the snippet that a verb prints. It runs in this process, because many tests need it."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        app(["snippet", *map(str, words)], result_action="return_value", exit_on_error=False, print_error=False)
    return out.getvalue()


def refused(*words: str | Path) -> str:
    """Return the error of a verb that prints nothing."""
    with pytest.raises((VhostcommError, CycloptsError)) as caught:
        printed(*words)
    if isinstance(caught.value, VhostcommError):
        assert caught.value.exit_code == UsageError.exit_code
    return str(caught.value)


def words_of(kind: str) -> list[str]:
    return [kind, *(["--vmid", "100"] if kind == "proxmox" else [])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_snippets_are_for_the_named_guest(file: Path, kind: str) -> None:
    text = printed(*words_of(kind), "--config", file, "--guest", "office")
    # The hookscript ignores a socket that QEMU creates, and the unit is for all guests.
    assert "/office" in text or kind in {"hookscript", "systemd"}
    assert "nas" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_guest_is_rejected(file: Path, kind: str) -> None:
    assert refused(*words_of(kind), "--config", file, "--guest", "nass") == (
        "the configuration has no guest 'nass', only nas, office: choose one of them with --guest, "
        f"or add [guests.nass] to the file {file}"
    )
    assert 'or add [guests."nas.2"] to the file' in refused(*words_of(kind), "--config", file, "--guest", "nas.2")


def test_the_lines_for_a_qmp_socket_are_toml(tmp_path: Path) -> None:
    file = tmp_path / "vhostcomm.toml"
    for name in ("nas", "nas.2"):
        lines = [
            line for line in qmp_remark(load(socks=[f"{name}=/run/{name}"]).guests[0]).splitlines() if line[0] == " "
        ]
        file.write_text("\n".join(lines))
        assert load(file).guests[0].qmp == f"/run/qemu/{name}.qmp"


def test_error_is_one_line_with_status_2(file: Path) -> None:
    ended = run_vhostcomm("snippet", "qemu", "--config", file, "--guest", "nass")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("vhostcomm: the configuration has no guest 'nass'")


def test_guest_must_be_named_if_there_are_several(file: Path) -> None:
    assert refused("qemu", "--config", file) == "name one of the guests with --guest: nas, office"
    assert "path=/run/guests/nas," in printed("qemu", "--sock", "/run/guests/nas", "--qemu-version", "7.2")


def test_configuration_without_guests_is_rejected() -> None:
    why = refused("qemu", "--guest", "nas")
    assert why == ("the configuration has no guest 'nas': give --config with a guest in it, or --sock nas=PATH")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["qemu", "--qemu-version", "seven"], "--qemu-version seven: expected MAJOR.MINOR"),
        (["qemu", "--qemu-version", "6.2"], "7.2 or later"),
        (["qemu", "--qemu-version", "7.1"], "7.2 or later"),
        (["qemu", "--qemu", "qemu-system-x86_64", "--qemu-version", "7.2"], "give only one"),
        (["proxmox"], "--vmid N is missing: the VM's number; qm list"),
        (["proxmox", "--vmid", "99"], "--vmid 99: expected 100 to 999999999"),
        (["libvirt", "--boot", "boot.img"], "add --domain"),
        (["libvirt", "--domain"], "give --boot"),
        (["libvirt", "--domain", "--boot", "{boot}", "--net", "network="], "virsh net-list"),
        (["libvirt", "--domain", "--boot", "{boot}", "--net", "wifi"], "--net wifi"),
        (["libvirt", "--domain", "--boot", "{boot}", "--mac", "x"], "--mac x"),
        (["libvirt", "--domain", "--boot", "{boot}", "--memory", "1"], "memory is 1: expected 16 to"),
        (["libvirt", "--domain", "--boot", "{boot}", "--cpus", "0"], "cpus is 0"),
        (["libvirt", "--domain", "--boot", "{boot}", "--emulator", "no-qemu"], "no such program"),
        (["libvirt", "--vcpus", "4"], "--vcpus: only a whole machine has that: add --domain"),
        (["qemu", "--vcpus", "4"], "--vcpus: only a whole machine has that: give a DIRECTORY"),
        (["proxmox", "--vmid", "100", "--vcpus", "4"], "--vcpus: only a whole machine has that: give a DIRECTORY"),
        (["hookscript", "--vcpus", "4"], "--vcpus: only the daemon uses that: give it to `vhostcomm serve`"),
        (["hookscript", "--control-token", "0123456789abcdef"], "--control-token has no effect without --control tcp:"),
        (["qemu", "--guest-serial", "1234ABC567890"], "--guest-serial: only the daemon uses that"),
        (["libvirt", "--guest-uuid", "d990d22a-e971-ef5f-a7b3-e6374e496b34"], "--guest-uuid: only the daemon"),
        (["qemu", "--control", "/tmp/x"], "--control: only the daemon uses that: give it to `vhostcomm serve`"),
        (["hookscript", "--control-ca", "/nope"], "--control-ca has no effect without --control tls:HOST:PORT"),
        (["qemu", "--web", "127.0.0.1:1", "--host-build", "1"], "--host-build, --web: only the daemon"),
        (["proxmox", "--vmid", "100", "--log-level", "debug"], "--log-level: only the daemon uses that"),
        (["hookscript", "--record", "/tmp/{{guest}}"], "--record: only the daemon uses that"),
        (["virtualbox"], "virtualbox"),
    ],
)
@pytest.mark.slow
def test_mistakes_in_flags_are_reported(tmp_path: Path, words: list[str], why: str) -> None:
    boot = tmp_path / "boot.img"
    boot.touch()
    os.truncate(boot, 1 << 20)
    words = [word.replace("{boot}", str(boot)) for word in words]
    assert why in refused(*words, *(["--sock", "nas=/run/nas"] if words != ["virtualbox"] else []))


def test_a_program_that_is_no_qemu_is_rejected() -> None:
    with pytest.raises(QemuError, match="doesn't answer as QEMU 7"):
        printed("qemu", "--sock", "nas=/run/nas", "--qemu", "/bin/true")


def test_without_qemu_the_assumed_version_is_named(tmp_path: Path) -> None:
    nowhere = ENVIRONMENT | {"PATH": str(tmp_path)}
    shown = run_vhostcomm("snippet", "qemu", "--sock", "nas=/run/nas", env=nowhere)
    assert ",reconnect-ms=1000" in shown.stdout
    assert "not installed here, so it is written for QEMU 9.2 and later" in shown.stderr
    assert "--qemu-version 7.2" in shown.stderr


@pytest.mark.parametrize(
    ("version", "spelt"),
    [("7.2", "reconnect=1"), ("9.1.2", "reconnect=1"), ("9.2", "reconnect-ms=1000"), ("10.2.0", "reconnect-ms=1000")],
)
def test_spelling_of_each_qemu_version(version: str, spelt: str) -> None:
    (guest,) = load(socks=["nas=/run/guests/nas"], environment={}).guests
    words = shlex.split(arguments(guest, Spelling.of_version(version)).text.replace("\\\n", ""))
    assert words == [
        "-device", "virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x3",
        "-chardev", f"socket,id=charchannel0,path=/run/guests/nas,{spelt}",
        "-device", "virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sock", "socket"),
    [
        ("connect:/run/guests/nas", "path=/run/guests/nas,server=on,wait=off"),
        ("tcp:127.0.0.1:12345", "host=127.0.0.1,port=12345,reconnect=1"),
        ("tcp:0.0.0.0:12345", "host=127.0.0.1,port=12345,reconnect=1"),
        ("tcp:[::]:12345", "host=::1,port=12345,reconnect=1"),
    ],
)
def test_arguments_for_each_kind_of_address(sock: str, socket: str) -> None:
    (guest,) = load(socks=[f"nas={sock}"], environment={}).guests
    assert f"-chardev socket,id=charchannel0,{socket} " in arguments(guest, SECONDS).text


@pytest.mark.parametrize(
    ("sock", "why"),
    [("/run/a\nb", "can't be pasted"), ("tcp:127.0.0.1:0", "a different port at each start; choose a port")],
)
def test_an_address_that_cannot_be_pasted(sock: str, why: str) -> None:
    assert why in refused("qemu", "--sock", f"nas={sock}", "--qemu-version", "7.2")


def test_each_guest_of_proxmox_has_a_socket_of_its_own(file: Path) -> None:
    texts = [printed("proxmox", "--vmid", "100", "--config", file, "--guest", each) for each in ("nas", "office")]
    for text, place in zip(texts, ("path=/run/guests/nas,", "path=/run/guests/office,server=on"), strict=True):
        (line,) = (each for each in text.splitlines() if each.startswith("qm set 100 --args "))
        assert place in line
        assert "addr=0x8" in line
        assert "any number of guests" in text
        # All lines except comments are commands of Proxmox VE.
        assert {shlex.split(each)[0] for each in text.splitlines() if each and each[0] != "#"} == {"qm"}


def test_the_hookscript_of_proxmox_is_that_guests(file: Path) -> None:
    """The printed command, run unchanged, prints a hookscript for the same guest."""
    words = ("--config", file, "--guest", "nas", "--unit", "vhostcomm-guest@.socket", "--control", "/run/c")
    (line,) = (
        each for each in printed("proxmox", "--vmid", "100", *words).splitlines() if "snippet hookscript" in each
    )
    command, place = line.removeprefix("#   vhostcomm snippet ").split(" >")
    assert place == "/var/lib/vz/snippets/vhostcomm-nas"
    assert printed(*shlex.split(command)) == printed("hookscript", *words)
    text = printed("proxmox", "--vmid", "100", "--sock", "office=/run/x y/o")
    assert "#   vhostcomm snippet hookscript --sock 'office=/run/x y/o' >/var" in text


@pytest.mark.parametrize("kind", ["qemu", "proxmox", "libvirt"])
def test_snippets_explain_the_name_of_the_port(file: Path, kind: str) -> None:
    done = run_vhostcomm("snippet", *words_of(kind), "--config", file, "--guest", "nas")
    words = " ".join((done.stdout + done.stderr).replace("#", " ").split())
    assert "/dev/vport1p1, as on a genuine host" in words
    assert "name is /dev/vport0p1" in words


def test_domain_without_a_network_card_names_the_other_port(tmp_path: Path) -> None:
    boot = tmp_path / "boot.img"
    boot.touch()
    os.truncate(boot, 1 << 20)
    words = ("libvirt", "--domain", "--boot", boot, "--sock", "nas=/run/nas")
    assert "No network card is at 0x2" in printed(*words, "--net", "none")
    assert "No network card is" not in printed(*words)


SECONDS = Spelling(Reconnect.SECONDS, "written for a test")


@pytest.mark.parametrize("kind", ["qemu", "proxmox", "libvirt"])
@pytest.mark.slow
def test_the_qmp_socket_of_a_guest(tmp_path: Path, kind: str) -> None:
    """QEMU has two arguments for it; a comma in the path is doubled."""
    file = tmp_path / "vhostcomm.toml"
    file.write_text('[guests.nas]\nsock = "/run/guests/nas"\nqmp = "/run/qemu/a,b.qmp"\n')
    words = [*words_of(kind), "--config", str(file)]
    text = printed(*words)
    socket = "socket,id=vhostcomm-qmp,path=/run/qemu/a,,b.qmp,server=on,wait=off"
    found = {
        "qemu": f"-chardev {socket} \\\n    -qmp chardev:vhostcomm-qmp",
        "proxmox": f"-chardev {socket} -qmp chardev:vhostcomm-qmp",
        "libvirt": f'<qemu:arg value="{socket}"/>',
    }
    assert found[kind] in text
    file.write_text('[guests.nas]\nsock = "/run/guests/nas"\n')
    assert "vhostcomm-qmp" not in printed(*words)


def test_the_qmp_socket_in_a_whole_domain(tmp_path: Path) -> None:
    file, boot = tmp_path / "vhostcomm.toml", tmp_path / "boot.img"
    file.write_text('[guests.nas]\nsock = "/run/guests/nas"\nqmp = "/run/qemu/nas.qmp"\n')
    boot.touch()
    os.truncate(boot, 1 << 20)
    read = ET.fromstring(printed("libvirt", "--domain", "--boot", boot, "--config", file))
    words = [each.get("value") for each in read.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")]
    assert words == [
        "-chardev", "socket,id=vhostcomm-qmp,path=/run/qemu/nas.qmp,server=on,wait=off",
        "-qmp", "chardev:vhostcomm-qmp",
    ]  # fmt: skip


def test_qemu_does_not_connect_to_the_wildcard_address() -> None:
    config: Config = load(socks=["nas=tcp:0.0.0.0:1"], environment={})
    assert config.guests[0].address == ListenTcp("0.0.0.0", 1)
    assert "0.0.0.0" not in arguments(config.guests[0], SECONDS).text


@pytest.mark.parametrize("kind", ["qemu", "libvirt", "proxmox", "hookscript"])
def test_help_lists_only_the_settings_that_a_snippet_uses(kind: str) -> None:
    shown = run_vhostcomm("snippet", kind, "--help").stdout
    every = {flag_of(each) for model in SECTIONS.values() for each in settings(model).values()}
    used = {"hookscript": USED_BY_SCRIPT, "proxmox": USED_BY_PROXMOX}.get(kind, USED)
    assert {flag for flag in every if re.search(rf"^  --{flag}\b(?!-)", shown, re.MULTILINE)} == used
    of_machine = "virtual CPUs. Only with a DIRECTORY, or libvirt's --domain." in " ".join(shown.split())
    assert of_machine == ("vcpus" in used)
