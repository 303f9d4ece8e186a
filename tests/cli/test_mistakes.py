"""Errors for mistakes in the command line, and the help of the verb to which they refer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.serving import ENVIRONMENT, run_vhostcomm

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "what", "verb"),
    [
        ("serve nas=/tmp/x", "nas=/tmp/x: serve accepts no such argument; did you mean --sock nas=/tmp/x?", "serve"),
        ("serve vhostcomm.toml", "did you mean --config vhostcomm.toml?", "serve"),
        ("info nas attic", "attic: info accepts no such argument", "info"),
        ("info --timeout soon", "--timeout soon: must be a number of seconds; for example: --timeout 10", "info"),
        ("info --timeout 0", "--timeout 0: must be more than 0 and at most 3600 seconds", "info"),
        ("list --sokc x", "--sokc: guests has no such flag", "guests"),
        ("serve --sokc x", "--sokc: serve has no such flag; did you mean --sock?", "serve"),
        ("freeze nas --bogus", "--bogus: freeze has no such flag (see", "freeze"),
        ("run --accel kvmm", "--accel kvmm: must be one of auto, kvm, tcg; did you mean kvm?", "run"),
        (
            "run --dry-run --boot {disk} --forward 99999:80",
            "--forward 99999:80: host port is 99999: expected 1 to 65535",
            "run",
        ),
        (
            "run --dry-run --boot {disk} --serial-console=",
            "--serial-console '': path is '': not the name of a file",
            "run",
        ),
        ("run --vcpus two --boot x", "--vcpus is 'two'", None),
        ("run --sock nas=/tmp/x --initrd a", "nothing to start: give a directory of", "run"),
        ("run --boot a --boot b", "--boot is given twice: give it once", "run"),
        ("serve --sock", "--sock: its value is missing: --sock [NAME=]SOCK", "serve"),
        ("disk init x.img", "--size is missing: give --size SIZE", "disk init"),
        (
            "snippet libvirt --qemu-version 7.2",
            "--qemu-version: snippet libvirt has no such flag (see",
            "snippet libvirt",
        ),
        ("disk init x.img --format vmdk --size 1G", "--format vmdk: must be one of raw, qcow2", "disk init"),
        ("capture show", "FILE is missing", "capture show"),
        ("completion tcsh", "SHELL tcsh: must be one of bash, zsh, fish", "completion"),
        ("gusts", "gusts: no such command; did you mean guests?", ""),
        ("frobnicate", "frobnicate: no such command", ""),
        ("config frobnicate", "config frobnicate: no such command; known: validate, show, init", "config"),
        ("help gusts", "gusts: no such command; did you mean guests?", ""),
        ("guests --cluster-ca x", "--cluster-ca has no effect without --cluster", "guests"),
        ("guests --control /x --cluster etcd://a", "--cluster has no effect with --control", "guests"),
        ("guests --control-ca x --control /x", "--control-ca has no effect without --control tls:HOST:PORT", "guests"),
        ("guests --control-token x", "--control-token has no effect without --control tcp:HOST:PORT", "guests"),
        ("serve --sock a=/x/a --control-key x", "--control-key has no effect without --control tls:HOST:PORT", None),
        ("probe --sock connect:/x", "--sock connect:", "probe"),
        ("probe 127.0.0.1:1", "a TCP address begins with tcp: write tcp:127.0.0.1:1", "probe"),
        ("capture diff a", "SECOND is missing", "capture diff"),
    ],
)
@pytest.mark.slow
def test_a_mistake_names_the_word_the_remedy_and_the_verbs_own_help(
    line: str, what: str, verb: str | None, tmp_path: Path
) -> None:
    (disk := tmp_path / "boot.img").write_bytes(bytes(1024))
    done = run_vhostcomm(*line.format(disk=disk).split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vhostcomm: ")
    assert what in done.stderr
    if verb is not None:
        help_of = f"vhostcomm {verb} --help" if verb else "vhostcomm --help"
        assert done.stderr.endswith(f" (see {help_of})\n")
    for framework in ("Unused", "Unknown", "Parameter", "unable to convert", "Root Input", "float", "defined in file"):
        assert framework not in done.stderr


def test_variables_without_effect_are_ignored() -> None:
    left = ("CLUSTER_CA", "CLUSTER_USER", "CONTROL_CA", "CONTROL_KEY", "CONTROL_TOKEN")
    environment = ENVIRONMENT | {f"VHOSTCOMM_{each}": "0123456789abcdef" for each in left}
    environment["VHOSTCOMM_CONTROL_CERT"] = ".//host.crt"  # not as Python spells it
    assert "no daemon to ask" in run_vhostcomm("guests", "--control", "/no/control.sock", env=environment).stderr
    assert run_vhostcomm("snippet", "qemu", "--sock", "nas=/run/nas", env=environment).returncode == 0


@pytest.mark.parametrize("same", [("list", "guests"), ("stop", "shutdown")])
@pytest.mark.slow
def test_alias_of_a_verb_does_the_same(same: tuple[str, str]) -> None:
    words = ["--control", "/no/such/control.sock"]
    first, second = (run_vhostcomm(each, *words) for each in same)
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr)
    assert "no daemon to ask" in first.stderr
    helps = [run_vhostcomm(each, "--help").stdout.partition("\n") for each in same]
    assert helps[0][2] == helps[1][2]
    assert "Usage: vhostcomm" in helps[0][0]


@pytest.mark.parametrize(
    "words", [["probe"], ["serve", "--sock", "a b=./x"], ["serve", "--sock", "a=./x", "--control", "tcp:x"]]
)
def test_examples_have_the_users_own_runtime_directory(words: list[str], tmp_path: Path) -> None:
    """An ordinary user can't create sockets in /run/vhostcomm."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "XDG_RUNTIME_DIR"}
    environment |= {"RUNTIME_DIRECTORY": "/run/user/1000/vhostcomm"}
    done = run_vhostcomm(*words, env=environment)
    assert done.returncode == 2
    assert "/run/user/1000/vhostcomm/" in done.stderr
    file = tmp_path / "vhostcomm.toml"
    assert run_vhostcomm("config", "init", file, env=environment).returncode == 0
    assert ("/run/user/1000/vhostcomm/nas" in file.read_text(), "/run/vhostcomm" in file.read_text()) == (True, False)


@pytest.mark.slow
def test_texts_of_vdsm_run_name_it() -> None:
    def said(*words: str) -> str:
        command = [sys.executable, str(ROOT / "vdsm_run.py"), *words]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if "--help" in words else 2), done
        return done.stdout + done.stderr

    shown = said("--help")
    assert shown.startswith("Usage: vdsm_run.py [OPTIONS] [DIRECTORY] [-- QEMU-ARGUMENT...]\n")
    assert "    vdsm_run.py nas/ --dry-run   " in shown
    usage, _, text = run_vhostcomm("run", "--help").stdout.partition("\n")
    assert usage == "Usage: vhostcomm run [OPTIONS] [DIRECTORY] [-- QEMU-ARGUMENT...]"
    assert "    vhostcomm run nas/ --dry-run   " in text
    see = " (see vdsm_run.py --help)\n"
    assert said("--boot").endswith(see)
    assert said("--booot", "x") == f"vhostcomm: --booot: vdsm_run.py has no such flag; did you mean --boot?{see}"
    assert said("nas", "-s").endswith(see)
    assert "come after --; for example: vdsm_run.py … -- -s -S" in said("nas", "other")
