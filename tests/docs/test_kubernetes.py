"""The StatefulSet on the page on containers is valid by Kubernetes's schemas; its commands and arguments work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from tests.control.controlled import INFORMATION, Answers, answering, controlled
from tests.docs.pages import ROOT, blocks
from tests.serving import run_vhostcomm, until

PAGE: Final = ROOT / "docs/getting-started-containers.md"
(TEXT,) = (each.content for each in blocks(PAGE.read_text(), PAGE.name) if each.marks.get("file") == "statefulset.yaml")
GET_INFORMATION: Final = 10
POWEROFF: Final = 6


def manifest(run: str | Path = "/run/vhostcomm") -> dict[str, Any]:
    """The manifest, with a directory instead of its emptyDir."""
    read = yaml.safe_load(TEXT.replace("/run/vhostcomm/", f"{run}/"))
    assert isinstance(read, dict)
    return read


def containers(read: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The containers of the sidecar and of QEMU."""
    pod = read["spec"]["template"]["spec"]
    (sidecar,), (qemu,) = pod["initContainers"], pod["containers"]
    return sidecar, qemu


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_schema_accepts_the_manifest(version: str) -> None:
    assert kubernetes_validate.validate(manifest(), version, strict=True) == version


def test_schema_rejects_a_wrong_name() -> None:
    wrong = json.loads(json.dumps(manifest()).replace('"restartPolicy"', '"restartPolicies"'))
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicies"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


@pytest.mark.slow
def test_arguments_are_the_printed_ones() -> None:
    _, qemu = containers(manifest())
    printed = run_vhostcomm("snippet", "qemu", "--sock", "nas=/run/vhostcomm/nas", "--qemu-version", "10.0").stdout
    assert qemu["args"] == printed.replace("\\\n", " ").split()


@pytest.mark.needs("curl")
def test_probes_and_the_stop(short_path: Path) -> None:
    (short_path / "control.sock").symlink_to("control")
    sidecar, qemu = containers(manifest(short_path))
    _, *ready = sidecar["readinessProbe"]["exec"]["command"]

    def is_ready() -> bool:
        return subprocess.run([sys.executable, *ready], check=False).returncode == 0

    with controlled(short_path) as (daemon, _):
        assert subprocess.run(sidecar["startupProbe"]["exec"]["command"], check=False).returncode == 0
        alive = run_vhostcomm(*sidecar["livenessProbe"]["exec"]["command"][1:], "--control", short_path / "control")
        assert alive.returncode == 0
        assert not is_ready(), "without its guest"
        answers: Answers = {GET_INFORMATION: INFORMATION, POWEROFF: lambda: None}
        with answering(short_path / "nas", answers) as guest:
            until(is_ready)
            stopped = subprocess.run(
                qemu["lifecycle"]["preStop"]["exec"]["command"], capture_output=True, text=True, check=True
            )
            assert "gone" in stopped.stdout
            assert POWEROFF in guest.asked
        daemon.event("stop requested", how="power-off")
