"""Tests of an installation's programs, data and man pages. tests/wheel.py runs them outside of a checkout."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

import vchannel
import vhostcomm
from tests.serving import ENVIRONMENT, TIMEOUT, Serving, fake_guest, is_listening, started, until

BIN = Path(sys.prefix) / "bin"
SHARE = Path(sys.prefix) / "share"


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], env=ENVIRONMENT, timeout=TIMEOUT, capture_output=True, text=True, check=False
    )


def test_vhostcomm_is_imported_from_the_installation() -> None:
    site = Path(sysconfig.get_path("purelib"))
    assert Path(vhostcomm.__file__).parent == site / "vhostcomm"
    assert Path(vchannel.__file__).parent == site / "vchannel"
    assert importlib.metadata.version("vhostcomm") == vhostcomm.__version__


@pytest.mark.parametrize("package", [vhostcomm, vchannel], ids=lambda package: package.__name__)
def test_every_module_can_be_imported(package: object) -> None:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    names = [each.name for each in pkgutil.walk_packages(path, f"{name}.") if not each.name.endswith("__main__")]
    assert len(names) > 3
    for each in names:
        importlib.import_module(each)


@pytest.mark.parametrize(
    "words", [[BIN / "vhostcomm"], [BIN / "vdsm_run"], [BIN / "python", "-m", "vhostcomm"], [BIN / "python", "-m", "vdsm_run"]],
    ids=["vhostcomm", "vdsm_run", "-m vhostcomm", "-m vdsm_run"],
)  # fmt: skip
def test_versions(words: list[str | Path]) -> None:
    done = call(*words, "--version")
    assert done.stdout.splitlines()[:2] == [f"vhostcomm {vhostcomm.__version__}", f"Python {platform.python_version()}"]
    assert done.stdout.splitlines()[2].startswith("QEMU ")


def test_the_version_of_qemu_host_is_in_its_help() -> None:
    assert call(BIN / "qemu-host", "-help").stdout.endswith(f"vhostcomm {vhostcomm.__version__}'s.\n")


def test_serve_and_probe(tmp_path: Path) -> None:
    with Serving("--sock", tmp_path / "nas", "--control", tmp_path / "control", "--guest-serial", "1234ABC567890"):
        done = call(BIN / "vhostcomm", "probe", "--sock", tmp_path / "nas", "--json")
        assert done.returncode == 0, done.stderr
        answers = {each["name"]: each["answer"] for each in json.loads(done.stdout)["answers"]}
        assert answers["GUEST_SERIAL"] == "1234ABC567890"
        listed = call(BIN / "vhostcomm", "guests", "--control", tmp_path / "control", "--json")
        assert [each["name"] for each in json.loads(listed.stdout)] == ["nas"]


@pytest.mark.parametrize("words", [[BIN / "vdsm_run"], [BIN / "python", "-m", "vdsm_run"]], ids=["vdsm_run", "-m"])
def test_vdsm_run(tmp_path: Path, words: list[str | Path]) -> None:
    disk = tmp_path / "synoboot.img"
    disk.write_bytes(bytes(1 << 20))
    done = call(*words, "--boot", disk, "--accel", "tcg", "--dry-run", "--", "-vnc", ":1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qemu-system-x86_64")
    assert f"{disk}" in done.stdout
    assert done.stdout.rstrip().endswith("-vnc :1")


def test_qemu_host(tmp_path: Path) -> None:
    guest, api = tmp_path / "guest", tmp_path / "api"
    command = [BIN / "qemu-host", f"-addr=unix:{guest}", f"-api=unix:{api}", "-guestsn=1234abc567890"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: is_listening(guest) and is_listening(api))
        with fake_guest(guest) as asking:
            assert asking.serial() == "1234ABC567890"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(api))) as http:
            refused = http.get("http://x/read?command=nonsense")
        assert refused.json()["message"] == "Failed to parse command: nonsense"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("page", ["vhostcomm", "vhostcomm-serve", "vdsm_run", "qemu-host", "vhostcomm.toml"])
def test_man_finds_the_pages_by_path(page: str) -> None:
    done = subprocess.run(
        ["man", "-w", page],
        env=ENVIRONMENT | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"{SHARE / 'man'}"), done.stderr


@pytest.mark.parametrize("program", ["vhostcomm", "vdsm_run"])
def test_completions_are_where_shells_look(program: str) -> None:
    for path in ("bash-completion/completions/{}", "zsh/site-functions/_{}", "fish/vendor_completions.d/{}.fish"):
        assert "vhostcomm completion" in (SHARE / path.format(program)).read_text()
