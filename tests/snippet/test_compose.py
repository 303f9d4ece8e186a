"""The compose file is valid by compose's schema, and its daemon has the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import evolve

from tests.serving import run_vhostcomm
from vhostcomm.config.address import Connect, Listen, ListenTcp
from vhostcomm.config.load import load
from vhostcomm.config.models import Config
from vhostcomm.snippet.compose import compose
from vhostcomm.snippet.parts import Spelling

FILE = """\
[host]
serial = "HOST567890123"
model = 'a $model, "quoted": #1'
mac = "02:11:32:00:00:01"
[guest]
update_deadline = "2030-01-01"
[guests.nas]
sock = "{sock}"
serial = "1234ABC567890"
vcpus = 2
{uuid}
[serve]
socket_mode = "0660"
frame_rate = 100
record_limit = "1M"
allow_dangerous = true
control = "/run/elsewhere"
control_token = "0123456789abcdef"
record = "/var/log/nas.jsonl"
socket_group = "kvm"
"""

ADDRESSES = {
    "/srv/guests/nas": Listen(Path("/run/vhostcomm/nas")),
    "connect:/srv/guests/nas": Connect(Path("/run/vhostcomm/nas")),
    "/srv/guests/d990d22a-e971-ef5f-a7b3-e6374e496b34": Listen(
        Path("/run/vhostcomm/d990d22a-e971-ef5f-a7b3-e6374e496b34")
    ),
    "tcp:127.0.0.1:12345": ListenTcp("0.0.0.0", 12345),
}


def configured(folder: Path, sock: str, uuid: str = "") -> tuple[Path, Config]:
    file = folder / "vhostcomm.toml"
    file.write_text(FILE.format(sock=sock, uuid=uuid))
    return file, load(file, environment={})


def expanded(value: Any) -> Any:
    """Replace `$$` by `$`, as compose does."""
    return value.replace("$$", "$") if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("uuid", ["", 'uuid = "ba13a19a-c0c1-4fef-9346-915ed3b98341"'])
@pytest.mark.parametrize("sock", ADDRESSES)
def test_the_container_serves_the_configuration(tmp_path: Path, sock: str, uuid: str) -> None:
    file, config = configured(tmp_path, sock, uuid)
    printed = run_vhostcomm("snippet", "compose", "--config", file)
    assert printed.returncode == 0, printed.stderr
    document = yaml.safe_load(printed.stdout)
    service = document["services"]["vhostcomm"]
    assert service["entrypoint"] + service["command"][:2] == ["vhostcomm", "serve", "--sock"]
    environment = {name: expanded(value) for name, value in service["environment"].items()}
    inside = load(socks=service["command"][2:], environment=environment)
    assert inside.host == config.host
    assert [each.identity for each in inside.guests] == [each.identity for each in config.guests]
    assert inside.guests[0].address == ADDRESSES[sock]
    assert inside.guests[0].name == "nas"
    assert inside.service == evolve(config.service, control="", control_token="", record="", socket_group="")
    for kept in ("0123456789abcdef", "/run/elsewhere", "/var/log"):
        assert kept not in printed.stdout + printed.stderr
    for left_out in ("control", "control-token", "record", "socket-group"):
        assert left_out in printed.stderr
    # The control surface is in the runtime directory, for the health check, for any user.
    assert environment["RUNTIME_DIRECTORY"] == "/run/vhostcomm"
    assert service["healthcheck"]["test"] == ["CMD", "vhostcomm", "info", "nas"]
    assert service["volumes"] == ["vhostcomm:/run/vhostcomm"]
    # Only the socket's owner and root can connect to it.
    assert service["user"] == ("0:0" if sock.startswith("connect:") else "900:900")


@pytest.mark.slow
@pytest.mark.parametrize("sock", ADDRESSES)
def test_the_schema_of_compose_files(tmp_path: Path, sock: str) -> None:
    _, config = configured(tmp_path, sock)
    text = compose(config, config.guests[0], Spelling.unasked()).text
    # Unchanged, and with the other container's lines uncommented.
    head, _, commented = text.partition("  # qemu:")
    whole = head + "  qemu:" + commented.replace("\n  # ", "\n  ")
    assert "reconnect-ms=1000" in text or "connect:" in sock
    assert set(yaml.safe_load(whole)["services"]) == {"vhostcomm", "qemu"}
    files = [tmp_path / "part.yaml", tmp_path / "whole.yaml"]
    for file, document in zip(files, (text, whole), strict=True):
        file.write_text(document)
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_the_schema_rejects_an_invalid_compose_file(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {vhostcomm: {image: vhostcomm, healthcheck: {every: 30s}}}")
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 1
    assert "every" in checked.stdout


def test_compose_file_for_an_older_qemu(tmp_path: Path) -> None:
    printed = run_vhostcomm("snippet", "compose", "--sock", "nas=/run/nas", "--qemu-version", "7.2")
    assert "path=/run/vhostcomm/nas,reconnect=1" in printed.stdout


def test_user_of_the_container_is_the_images_user() -> None:
    text = (Path(__file__).parents[2] / "Containerfile").read_text()
    assert "USER 900:900\n" in text
    assert "docker build -f Containerfile -t vhostcomm ." in text
