"""The machine of a folder that `install` made, as QEMU's command, libvirt's domain and commands for Proxmox VE."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.needs import need
from tests.qemu.disks import sparse
from tests.serving import ENVIRONMENT, run_vhostcomm
from tests.snippet.test_snippet import printed, refused
from vhostcomm.config.machine import CONFIGURATION
from vhostcomm.install.configuration import configuration

MAC: Final = "02:11:32:00:00:01"

QM: Final = """\
#!/bin/sh
# As much of Proxmox VE's qm as the commands need: imported disks are unused until they have a place.
echo "$@" >>"$FAKE/said"
case $1 in
importdisk) echo "unused0: $4:vm-$2-$(basename "$3")" >"$FAKE/unused" ;;
config) cat "$FAKE/unused" ;;
set) case $3 in --scsi[0-9]*) echo "${3#--} $4" >>"$FAKE/places"; : >"$FAKE/unused" ;; esac ;;
esac
"""


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    folder = tmp_path / "my nas"
    folder.mkdir()
    disks = {name: f"{name}.img" for name in ("synoboot", "system", "data")}
    for name in disks.values():
        sparse(folder / name, 1 << 20)
    text = configuration("nas", "x.pat", disks, MAC, "aio=threads")
    (folder / CONFIGURATION).write_text(text.replace('"data.img"', '"data.img,serial=A1,iothread=off"'))
    return folder


@pytest.mark.needs("qemu-system-x86_64")
def test_qemus_command_is_that_of_run(nas: Path, tmp_path: Path) -> None:
    sock = tmp_path / "sock"
    (nas / CONFIGURATION).write_text(
        (nas / CONFIGURATION).read_text().replace("[guests.nas]", f'[guests.nas]\nsock = "{sock}"')
    )
    ran = run_vhostcomm("run", nas, "--accel", "tcg", "--dry-run")
    assert printed("qemu", nas, "--accel", "tcg") == ran.stdout, ran.stderr


def test_qemus_command_for_another_host(nas: Path) -> None:
    command = printed("qemu", nas, "--qemu-version", "7.2")
    assert "-machine pc,accel=kvm" in command
    assert "reconnect=1" in command
    assert f"'file={nas}/data.img,if=none,id=drive-userdata0,format=raw,cache=none,aio=threads" in command


def test_domain_of_a_folder(nas: Path, tmp_path: Path) -> None:
    need("virt-xml-validate")
    text = printed("libvirt", nas)
    (tmp_path / "nas.xml").write_text(text)
    subprocess.run(["virt-xml-validate", tmp_path / "nas.xml", "domain"], check=True, capture_output=True)
    domain = ET.fromstring(text)
    disks = domain.findall("devices/disk")
    assert [disk.find("source").attrib["file"] for disk in disks] == [  # type: ignore[union-attr]
        f"{nas}/{name}.img" for name in ("synoboot", "system", "data")
    ]
    assert [disk.findtext("serial") for disk in disks] == [None, None, "A1"]
    assert {disk.find("target").attrib["rotation_rate"] for disk in disks} == {"1"}  # type: ignore[union-attr]
    driver = disks[0].find("driver")
    assert driver is not None
    assert driver.attrib == {
        "name": "qemu", "type": "raw", "cache": "none", "io": "threads", "discard": "unmap", "detect_zeroes": "on"
    }  # fmt: skip
    assert domain.findtext("iothreads") == "2"
    threads = domain.findall("devices/controller[@type='scsi']/driver")
    assert [thread.attrib["iothread"] for thread in threads] == ["1", "2"]
    assert domain.findtext("memory") == "2048"
    assert domain.find("devices/interface[@type='network']/source[@network='default']") is not None
    assert domain.find(f"devices/interface/mac[@address='{MAC}']") is not None
    assert printed("libvirt", nas, "--memory", "4G").count("4096") == 1


def test_the_commands_of_proxmox_put_each_disk_into_its_place(nas: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "qm").write_text(QM)
    (fake / "qm").chmod(0o755)
    commands = printed("proxmox", nas, "--vmid", "100", "--storage", "tank")
    subprocess.run(
        ["sh", "-eu"], input=commands, text=True, check=True,
        env=ENVIRONMENT | {"PATH": f"{fake}:{os.environ['PATH']}", "FAKE": str(fake)},
    )  # fmt: skip
    how = "cache=none,aio=threads,discard=on,detect_zeroes=1"
    assert (fake / "places").read_text().splitlines() == [
        f"scsi9 tank:vm-100-synoboot.img,{how},iothread=1,ssd=1",
        f"scsi10 tank:vm-100-system.img,{how},iothread=1,ssd=1",
        f"scsi11 tank:vm-100-data.img,{how},ssd=1,serial=A1",
    ]
    said = (fake / "said").read_text().splitlines()
    assert said[0].startswith(
        "create 100 --name nas --ostype l26 --memory 2048 --cores 1 --cpu host --net0 virtio=02:11:"
    )
    assert f"importdisk 100 {nas}/synoboot.img tank" in said
    assert said.index("set 100 --agent 0 --scsihw virtio-scsi-single") < said.index(
        f"importdisk 100 {nas}/synoboot.img tank"
    )
    assert said[-1] == "set 100 --boot order=scsi9"


def test_passt_and_its_ports(nas: Path, tmp_path: Path) -> None:
    """QEMU's command starts passt first; libvirt starts passt itself."""
    need("virt-xml-validate")
    replace(nas / CONFIGURATION, 'net = "user"', 'net = "passt"')
    passt, separator, qemu = printed("qemu", nas, "--qemu-version", "7.2").partition(" && \\\n")
    assert separator
    assert "--tcp-ports 127.0.0.1/5000:5000 --one-off --socket /tmp/vhostcomm-nas.passt" in passt
    assert "-netdev stream,id=hostnet0,server=off,addr.type=unix,addr.path=/tmp/vhostcomm-nas.passt" in qemu
    text = printed("libvirt", nas)
    (tmp_path / "nas.xml").write_text(text)
    subprocess.run(["virt-xml-validate", tmp_path / "nas.xml", "domain"], check=True, capture_output=True)
    card = ET.fromstring(text).find("devices/interface[@type='user']")
    assert card is not None
    assert card.find("backend[@type='passt']") is not None
    assert card.find("portForward[@proto='tcp'][@address='127.0.0.1']/range[@start='5000'][@to='5000']") is not None


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def proxmox_line(nas: Path, verb: str) -> list[str]:
    """Return the words of the command that creates the VM or sets its args."""
    lines = printed("proxmox", nas, "--vmid", "100").splitlines()
    (line,) = (line for line in lines if line.startswith(f"qm {verb}"))
    return shlex.split(line)


def test_huge_pages_and_queues_in_proxmoxs_words(nas: Path) -> None:
    replace(
        nas / CONFIGURATION, 'net = "user"\nforward = ["5000:5000"]', 'net = "tap=tap0,queues=4"\nhugepages = "auto"'
    )
    words = proxmox_line(nas, "create 100")
    assert words[words.index("--net0") + 1] == f"virtio={MAC.upper()},bridge=vmbr0,queues=4"
    assert words[words.index("--numa") :][:4] == ["--numa", "1", "--hugepages", "any"]


@pytest.mark.needs("qemu-system-x86_64")
def test_qemu_accepts_the_changes_of_proxmoxs_arguments(nas: Path) -> None:
    """The changes are a rotation rate other than an SSD's, and processor features."""
    replace(nas / CONFIGURATION, '"data.img,serial=A1', '"data.img,rotation-rate=7200')
    replace(nas / CONFIGURATION, "net =", 'cpu_model = "Skylake-Client,-hle"\nnet =')
    words = proxmox_line(nas, "create 100")
    assert words[words.index("--cpu") + 1] == "Skylake-Client"
    *_, args = proxmox_line(nas, "set 100 --args")
    assert args.endswith(" -cpu Skylake-Client,-hle -set device.scsi11.rotation_rate=7200")
    its_own = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "pc,accel=tcg",
        "-cpu",
        "qemu64",
        "-S",
    ]
    its_own += ["-device", "virtio-scsi-pci,id=virtioscsi11,bus=pci.0,addr=0xc"]
    its_own += ["-drive", f"file={nas}/data.img,if=none,id=drive-scsi11,format=raw"]
    its_own += ["-device", "scsi-hd,bus=virtioscsi11.0,drive=drive-scsi11,id=scsi11,rotation_rate=1"]
    asked = [
        {"execute": "qmp_capabilities"},
        {"execute": "qom-get", "arguments": {"path": "/machine/peripheral/scsi11", "property": "rotation_rate"}},
        {"execute": "qom-get", "arguments": {"path": "/machine/unattached/device[0]", "property": "type"}},
        {"execute": "quit"},
    ]
    done = subprocess.run(
        [*its_own, *shlex.split(args), "-qmp", "stdio"], input="\n".join(map(json.dumps, asked)), env=ENVIRONMENT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [line["return"] for line in map(json.loads, done.stdout.splitlines()) if "return" in line]
    assert answers[1] == 7200
    assert answers[2] == "Skylake-Client-x86_64-cpu"


def test_a_processor_model_in_libvirts_words(nas: Path, tmp_path: Path) -> None:
    need("virt-xml-validate")
    file = nas / CONFIGURATION
    file.write_text(file.read_text().replace("net =", 'cpu_model = "Skylake-Client,-hle,+avx2,rtm=off"\nnet ='))
    text = printed("libvirt", nas)
    (tmp_path / "nas.xml").write_text(text)
    subprocess.run(["virt-xml-validate", tmp_path / "nas.xml", "domain"], check=True, capture_output=True)
    cpu = ET.fromstring(text).find("cpu[@mode='custom']")
    assert cpu is not None
    assert cpu.findtext("model") == "Skylake-Client"
    features = {each.attrib["name"]: each.attrib["policy"] for each in cpu.findall("feature")}
    assert features == {"hle": "disable", "avx2": "require", "rtm": "disable"}


@pytest.mark.parametrize("kind", ["qemu", "libvirt", "proxmox"])
def test_a_folder_without_a_guest(tmp_path: Path, kind: str) -> None:
    words: list[str | Path] = [kind, tmp_path / "my nas", *(["--vmid", "100"] if kind == "proxmox" else [])]
    made = f"`vhostcomm install PAT '{tmp_path}/my nas'` makes one"
    assert f"no directory with a vhostcomm.toml; {made}" in refused(*words)


def test_flags_of_a_whole_machine_need_a_folder() -> None:
    for words in (["qemu", "--accel", "tcg"], ["proxmox", "--vmid", "100", "--storage", "tank"]):
        assert "only a whole machine has that: give a DIRECTORY" in refused(*words, "--sock", "nas=/run/nas")
