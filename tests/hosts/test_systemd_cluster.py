"""The serving unit with TLS and a cluster, under a systemd that runs it, with a real etcd beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.etcd import PREFIX
from tests.control.authority import Authority
from tests.hosts.booted import CONFIG, PROGRAM, Booted, guests, uid
from tests.needs import need
from tests.serving import fake_guest, started, until
from tests.systemd.test_units import drop_ins
from vhostcomm.cluster.tree_file import NAME
from vhostcomm.systemd import units

SERVE = units.SERVE
FOLDER = "/etc/vhostcomm/tls"
WHERE = "tls:localhost:8471"
SERIAL = "1234ABC567890"
CLUSTER = "etcd://127.0.0.1:2379"


@contextmanager
def etcd(machine: Booted, folder: Path) -> Iterator[None]:
    """An etcd on the loopback of the machine; its program and its data are outside."""
    need("etcd")
    notify = folder / "ready.sock"
    inside = ["nsenter", f"--target={machine.leader}", "--net"]
    with ExitStack() as stack:
        ready = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        ready.bind(str(notify))
        ready.settimeout(60)
        log = stack.enter_context((folder / "log").open("wb"))
        environment = dict(os.environ) | {"NOTIFY_SOCKET": str(notify)}
        command = [*inside, "etcd", f"--data-dir={folder}/data", "--unsafe-no-fsync"]
        stack.enter_context(started(command, env=environment, stdout=log, stderr=log))
        assert b"READY=1" in ready.recv(4096)
        yield


def put(machine: Booted, key: str, value: str) -> None:
    """Write a key, from inside the machine."""
    body = {"key": b64encode((PREFIX + key).encode()).decode(), "value": b64encode(value.encode()).decode()}
    code = "import sys, urllib.request as u; u.urlopen('http://127.0.0.1:2379/v3/kv/put', sys.argv[1].encode())"
    machine.run("python3", "-c", code, json.dumps(body))


def test_serving_unit_works_with_tls_and_etcd(machine: Booted, tmp_path: Path) -> None:
    authority = Authority.new(tmp_path / "ca")
    files, admin = authority.host("host1", "localhost"), authority.host("admin", "admin.example")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n")  # the minimal folder has none
    machine.run("groupadd", "--force", "--system", "vhostcomm-tls")
    folder = machine.path(FOLDER)
    folder.mkdir(parents=True)
    for each in files.ca, files.cert, files.key, admin.cert, admin.key:
        shutil.copy(each, folder)
    machine.run("chown", "root:vhostcomm-tls", f"{FOLDER}/host1.key")
    machine.run("chmod", "0640", f"{FOLDER}/host1.key")
    machine.run("chmod", "0755", "/etc/vhostcomm", FOLDER)
    (drop_in,) = (text for unit, text in drop_ins() if "SupplementaryGroups=vhostcomm-tls" in text)
    machine.drop_in(SERVE, f"{drop_in}Environment=VHOSTCOMM_CLUSTER={CLUSTER}\n")
    control = "".join(f'control_{kind} = "{FOLDER}/{name}"\n' for kind, name in {
        "ca": "ca.crt", "cert": "host1.crt", "key": "host1.key"
    }.items())  # fmt: skip
    machine.write(CONFIG, guests(f'[serve]\ncontrol = "{WHERE}"\n{control}', "nas"))
    machine.install(SERVE, "--config", CONFIG, "--guest", "nas")
    flags = [
        f"--control-{kind}={FOLDER}/{name}"
        for kind, name in (("ca", "ca.crt"), ("cert", "admin.crt"), ("key", "admin.key"))
    ]
    (tmp_path / "etcd").mkdir()
    with etcd(machine, tmp_path / "etcd"):
        put(machine, "guests/nas", json.dumps({"serial": SERIAL}))
        machine.systemctl("start", SERVE)
        kept = machine.path(f"/var/lib/private/vhostcomm/{NAME}")
        until(kept.exists, "the kept tree", 60)
        assert kept.stat().st_uid == uid(machine.main_pid(SERVE))
        with fake_guest(machine.path("/run/vhostcomm/nas")) as guest:
            assert guest.serial() == SERIAL
            listed = json.loads(machine.run(PROGRAM, "guests", "--json", "--control", WHERE, *flags).stdout)
            assert [(each["name"], each["state"], each["serial"]) for each in listed] == [("nas", "ready", SERIAL)]
            put(machine, "guests/nas", "5")
            until(lambda: "the cluster's tree is rejected since" in machine.show(SERVE)["StatusText"], "the status", 60)
            assert guest.serial() == SERIAL
    until(lambda: "etcd can't be reached since" in machine.show(SERVE)["StatusText"], "the end of etcd", 60)
    assert machine.show(SERVE)["ActiveState"] == "active"
