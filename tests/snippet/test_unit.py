"""All snippets for one guest agree: QEMU connects to the socket of the unit's daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.serving import run_vhostcomm
from tests.snippet.test_snippet import printed, refused, words_of
from vhostcomm.systemd import units

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"
OWN = f"/run/vhostcomm-{UUID}"
QEMUS = ("qemu", "libvirt", "proxmox")

EXTERNAL = [each for each in units.NAMES if each != units.RUN]


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)


def socket_in(kind: str, text: str) -> str:
    """Return the socket to which QEMU connects in a snippet."""
    if kind == "libvirt":
        return text.split(' path="')[1].split('"', maxsplit=1)[0]
    return text.split("path=")[1].split(",", maxsplit=1)[0]


def hookscript(*words: str | Path) -> dict[str, str]:
    lines = printed("hookscript", *words).splitlines()
    return {
        name: value.partition(" #")[0]
        for name, _, value in (line.partition("=") for line in lines)
        if name in {"guest", "control", "sock", "unit"}
    }


@pytest.mark.parametrize(
    ("unit", "sock", "runtime", "service", "name"),
    [
        (units.SERVE, "/run/vhostcomm/nas", "/run/vhostcomm", "vhostcomm.service", "nas"),
        (units.SOCKET, "/run/vhostcomm-sockets/nas", "/run/vhostcomm", "vhostcomm.service", "nas"),
        (units.SERVE_ONE, f"{OWN}/{UUID}", OWN, f"vhostcomm@{UUID}.service", UUID),
        (units.SOCKET_ONE, f"/run/vhostcomm-sockets/{UUID}", OWN, f"vhostcomm@{UUID}.service", UUID),
    ],
)
@pytest.mark.slow
def test_snippets_agree_for_each_unit(
    tmp_path: Path, unit: str, sock: str, runtime: str, service: str, name: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[guests.nas]\nuuid = "{UUID}"\nsock = "/run/vhostcomm/nas"\n[guests.two]\n')
    words = ("--config", file, "--guest", "nas", "--unit", unit)
    for kind in QEMUS:
        assert socket_in(kind, printed(*words_of(kind), *words)) == sock
    assert hookscript(*words) == {"guest": name, "control": f"{runtime}/control.sock", "sock": sock, "unit": service}
    held = unit.endswith(".socket")
    assert ("SocketGroup=kvm" in printed("libvirt", *words)) == held
    assert ('socket_group = "kvm"' in printed("libvirt", *words)) == (not held)


@pytest.mark.slow
def test_uuid_without_a_name_is_for_the_unit_of_one_guest() -> None:
    """For the same flags, `snippet systemd` prints that unit, which starts `serve --sock UUID`."""
    for sock in (UUID, f"nas={UUID}"):
        assert {socket_in(kind, printed(*words_of(kind), "--sock", sock)) for kind in QEMUS} == {f"{OWN}/{UUID}"}
        assert hookscript("--sock", sock)["unit"] == f"vhostcomm@{UUID}.service"
        explained = run_vhostcomm("snippet", "systemd", "--sock", sock).stderr
        assert f"vhostcomm@{UUID}.service" in explained
        assert f"QEMU connects to {OWN}/{UUID};" in explained


def test_given_path_is_unchanged() -> None:
    for kind in QEMUS:
        assert socket_in(kind, printed(*words_of(kind), "--sock", f"nas=/run/{UUID}")) == f"/run/{UUID}"
    assert hookscript("--sock", "nas=/run/nas")["unit"] == "vhostcomm.service"


def test_a_configured_control_surface_is_kept(tmp_path: Path) -> None:
    found = hookscript("--sock", UUID, "--control", tmp_path / "control")
    assert found["control"] == str(tmp_path / "control")


@pytest.mark.parametrize("kind", ["qemu", "libvirt", "proxmox", "hookscript"])
def test_a_launcher_has_its_own_qemu(kind: str) -> None:
    assert "starts the guest's QEMU itself" in refused(*words_of(kind), "--sock", UUID, "--unit", units.RUN)


def test_unknown_unit_is_rejected() -> None:
    assert "vhostcomm@.service" in refused("hookscript", "--sock", UUID, "--unit", f"vhostcomm@{UUID}.service")
    done = run_vhostcomm("snippet", "systemd", "--sock", UUID, "--unit", "none")
    assert f"--unit none: must be one of {', '.join(units.NAMES)} (see" in done.stderr
    assert "start yourself" not in run_vhostcomm("snippet", "systemd", "--help").stdout


@pytest.mark.parametrize("xdg", ["/run/user/1000", ""])
@pytest.mark.slow
def test_snippets_are_for_the_service_not_for_their_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xdg: str
) -> None:
    """A user's runtime directory, or a missing one, has no service to which QEMU could connect."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", xdg)
    file = tmp_path / "c.toml"
    file.write_text("[guests.nas]\n")
    for kind in QEMUS:
        assert socket_in(kind, printed(*words_of(kind), "--config", file)) == "/run/vhostcomm/nas"
        assert socket_in(kind, printed(*words_of(kind), "--sock", UUID)) == f"{OWN}/{UUID}"
    assert '"nas=/run/vhostcomm/nas"' in printed("compose", "--config", file)
    assert hookscript("--config", file)["control"] == "/run/vhostcomm/control.sock"
    printed("systemd", "--config", file)
    own = ("--config", file, "--unit", "none")
    if xdg:
        assert socket_in("qemu", printed("qemu", *own)) == "/run/user/1000/vhostcomm/nas"
        assert hookscript(*own) == {
            "guest": "nas", "control": f"{xdg}/vhostcomm/control.sock", "sock": f"{xdg}/vhostcomm/nas", "unit": "''",
        }  # fmt: skip
    else:
        assert "XDG_RUNTIME_DIR is not set" in refused("qemu", *own)
