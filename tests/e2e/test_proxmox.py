"""A VM with the QEMU command that Proxmox VE 9's code made from our settings, and the hookscript in its phases."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.launched import BOOT_TIMEOUT, Console, Images
from tests.serving import Serving, run_vhostcomm, started

COMMAND: Final = shlex.split(Path(__file__).with_name("proxmox-command.txt").read_text().replace("\\\n", " "))
VMID: Final = "8006"
SERIAL: Final = "1234ABC567890"

NOT_HERE: Final = ("-id", "-iscsi")
"""Flags that only Proxmox VE's patched QEMU has, and the flag of an initiator that no disk uses."""


def printed(kind: str, *words: str | Path) -> str:
    done = run_vhostcomm("snippet", kind, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(sock: str) -> list[str]:
    """Return the arguments that the snippet prints for an administrator to paste."""
    text = printed("proxmox", "--sock", f"nas={sock}", "--vmid", VMID, "--qemu-version", "10.0")
    (line,) = (each for each in text.splitlines() if each.startswith(f"qm set {VMID} --args "))
    return shlex.split(shlex.split(line)[-1])


def test_proxmox_adds_the_printed_arguments_last() -> None:
    ours = arguments("/run/vhostcomm/nas")
    assert COMMAND[-len(ours) :] == ours


def command(folder: Path, images: Images, sock: Path) -> list[str]:
    """Return Proxmox VE's command with this machine's paths, without bridge, splash screen, background process and patches."""
    path, *data = images.qemu[1::2]
    _, *flags = COMMAND
    made = [path, *(word for place in data for word in ("-L", place)), "-display", "none"]
    words = iter(flags[: -len(arguments("/run/vhostcomm/nas"))])
    for flag in words:
        if flag == "-daemonize":
            continue
        value = "" if flag in {"-no-shutdown", "-nodefaults"} else next(words)
        if flag not in NOT_HERE:
            made += [flag, *([value] if value else [])]
    text = json.dumps(made)
    for number, image in enumerate((images.boot, images.system, images.data)):
        disk = folder / f"disk-{number}.raw"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, disk], check=True)
        text = text.replace(f"/var/lib/vz/images/{VMID}/vm-{VMID}-disk-{number}.raw", str(disk))
    for theirs, ours in {
        f"/var/run/qemu-server/{VMID}.": f"{folder}/",
        "/var/run/qmeventd.sock": f"{folder}/qmeventd",
        ",splash=/usr/share/qemu-server/bootsplash.jpg": "",
        "type=pc+pve0": "type=pc",
        f"socket,id=serial0,path={folder}/serial0,server=on,wait=off": f"file,id=serial0,path={folder}/console",
    }.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    text, found = re.subn(r"type=tap,id=net0,[^\"]*", "type=user,id=net0", text)
    assert found == 1
    return [*json.loads(text), *arguments(str(sock))]


@contextmanager
def ends_machines(place: Path) -> Iterator[threading.Event]:
    """End a QEMU whose guest has powered itself off, as Proxmox VE's `qmeventd` does, and set the event."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        # A QEMU that ends with unread data resets the connection.
        with suppress(ConnectionError), connection, connection.makefile("rwb") as qmp:
            for line in qmp:
                message = json.loads(line)
                if "QMP" in message:
                    qmp.write(b'{"execute": "qmp_capabilities"}\n')
                elif message.get("event") == "SHUTDOWN" and message["data"]["guest"]:
                    qmp.write(b'{"execute": "quit"}\n')
                    ended.set()
                qmp.flush()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield ended
        thread.join(BOOT_TIMEOUT)
        assert not thread.is_alive(), "QEMU did not close the connection"


def test_vm_boots_and_its_hookscript_stops_it(short_path: Path, images: Images) -> None:
    version = subprocess.run([images.qemu[1], "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.split("version ")[1].split(".")[0]) < 10:
        pytest.skip("the command is for the QEMU of Proxmox VE 9; make qemu10 has one")
    sock, control = short_path / "nas", short_path / "control"
    program = short_path / "vhostcomm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vhostcomm "$@"\n')
    hook = short_path / "hook"
    hook.write_text(
        printed("hookscript", "--sock", f"nas={sock}", "--control", control, "--program", program, "--unit", "none")
    )
    for each in program, hook:
        each.chmod(0o755)

    def phase(name: str) -> subprocess.CompletedProcess[str]:
        """Run the hookscript as Proxmox VE's exec_hookscript does: as an executable, with the VM's number and the phase."""
        return subprocess.run(
            [hook, VMID, name],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    assert phase("pre-start").returncode, "without a daemon, Proxmox VE must not start the VM"
    console = Console(short_path / "console")
    with Serving("--sock", f"nas={sock}", "--guest-serial", SERIAL, "--control", control) as daemon:
        assert phase("pre-start").returncode == 0
        with (
            ends_machines(short_path / "qmeventd") as ended,
            started(command(short_path, images, sock), stdin=subprocess.DEVNULL) as qemu,
        ):
            assert phase("post-start").returncode == 0
            daemon.timeout = BOOT_TIMEOUT
            daemon.event("guest ready", guest="nas")
            console.says("vchannel: ready")
            stopped = phase("pre-stop")
            assert (stopped.returncode, stopped.stderr) == (0, "")
            assert "nas: gone after" in stopped.stdout
            assert ended.is_set(), "the guest did not power itself off"
            assert qemu.wait(BOOT_TIMEOUT) == 0
        assert "absent, power-off requested" in phase("post-stop").stderr
    assert "vchannel: port /dev/vport1p1" in console.text
    for line in ("[synoboot]", "[sda]", "[sdb]", "reboot: Power down"):
        assert line in console.text, line
    console.kept_to_the_protocol()
