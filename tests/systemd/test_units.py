"""The units, as systemd reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import TIMEOUT, VHOSTCOMM, run_vhostcomm
from vhostcomm.systemd import units

UUID = "d990d22a-e971-ef5f-a7b3-e6374e496b34"
GUESTS = {units.SERVE_ONE: UUID, units.SOCKET_ONE: UUID, units.RUN: "nas", units.SOCKET: "nas"}
SERVES = [units.SERVE, units.SERVE_ONE]

DOCS = Path(__file__).parents[2] / "docs/systemd.md"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * TIMEOUT, check=False)


def write(folder: Path, **paths: str) -> None:
    for name in units.NAMES:
        (folder / name).write_text(units.text(name, **paths))


def executable(folder: Path) -> str:
    """A vhostcomm that runs, however the package under test was installed."""
    path = folder / "bin with a blank" / "100% vhost$comm"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {" ".join(VHOSTCOMM)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def verify(folder: Path, name: str) -> str:
    unit = units.instance(name, GUESTS[name]) if name in GUESTS else name
    verified = analyze("verify", "--man=no", folder / unit)
    return f"{verified.stdout}{verified.stderr}{verified.returncode or ''}"


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", units.NAMES)
def test_systemd_analyze_accepts_the_units(tmp_path: Path, name: str) -> None:
    write(tmp_path, executable=executable(tmp_path))
    assert verify(tmp_path, name) == ""


@pytest.mark.needs("systemd-analyze")
def test_systemd_analyze_finds_planted_mistakes(tmp_path: Path) -> None:
    write(tmp_path, executable="/nowhere/vhostcomm")
    assert "/nowhere/vhostcomm" in verify(tmp_path, units.SERVE)
    (tmp_path / units.RUN).write_text(
        units.text(units.RUN, executable=shutil.which("true") or "").replace("Kill", "Kil")
    )
    assert "KilMode" in verify(tmp_path, units.RUN)


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(("name", "most"), [(units.SERVE, 10), (units.SERVE_ONE, 10), (units.RUN, 20)])
def test_exposure_is_limited(tmp_path: Path, name: str, most: int) -> None:
    """At most 1.0 of 10 for the serving units, and 2.0 for the launcher's, which runs QEMU."""
    write(tmp_path)
    done = analyze("security", "--offline=true", f"--threshold={most}", tmp_path / name)
    assert done.returncode == 0, done.stdout
    assert analyze("security", "--offline=true", "--threshold=1", tmp_path / name).returncode, "0.1 is out of reach"


def drop_ins() -> list[tuple[str, str]]:
    """The drop-ins of the documentation: a unit's name, and the text."""
    return re.findall(r"`systemctl\s+edit\s+(vhostcomm\S+)`:\n\n```ini\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.mark.needs("systemd-analyze")
def test_drop_ins_of_the_documentation_are_valid(tmp_path: Path) -> None:
    """systemd-analyze accepts each drop-in with its unit."""
    assert len(drop_ins()) == DOCS.read_text().count("\n```ini\n[") > 0, "each names its unit"
    assert "ReadWritePaths=/" not in DOCS.read_text(), "a missing folder would be systemd's 226, without a remedy"
    for number, (unit, text) in enumerate(drop_ins()):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, executable=executable(folder))
        name = re.sub("@[^.]+", "@", unit)
        assert name in units.NAMES
        (folder / f"{name}.d").mkdir()
        (folder / f"{name}.d" / "override.conf").write_text(text)
        assert verify(folder, name) == "", (unit, text)


def test_texts_have_the_given_paths() -> None:
    assert (
        "ExecStart=/usr/bin/vhostcomm serve --config /etc/vhostcomm/vhostcomm.toml --reload-on-change\n"
        in units.text(units.SERVE)
    )
    moved = units.text(
        units.SERVE, executable="/opt/v h/bin/vhostcomm", configs=["/srv/100%$x.toml", "/etc/pve/vhostcomm"]
    )
    assert (
        'ExecStart="/opt/v h/bin/vhostcomm" serve --config /srv/100%%$$x.toml --config /etc/pve/vhostcomm --reload-on-change\n'
        in moved
    )
    for name in units.NAMES:
        assert "@EXECUTABLE@" not in units.text(name)
        assert "@CONFIG@" not in units.text(name)
    for bad in ("vhostcomm", "/usr/bin/x\nExecStartPre=/bin/sh"):
        with pytest.raises(ValueError, match="absolute path"):
            units.text(units.SERVE, executable=bad)
    with pytest.raises(ValueError, match="there is no unit"):
        units.text("../../etc/passwd")


def test_running_executable_is_the_script_that_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in another directory than its Python: that of `pip install --user`, or a link in /usr/local/bin."""
    script = tmp_path / "vhostcomm"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere/python3"))
    monkeypatch.setattr(sys, "argv", ["./vhostcomm", "snippet"])
    assert units.running_executable() == str(script)


def test_running_executable_of_a_module_is_the_script_beside_python() -> None:
    """`python -m vhostcomm`; a unit and a hookscript start later, with another PATH."""
    beside = Path(sys.executable).with_name("vhostcomm")
    for words, line in (
        (["hookscript", "--unit", "none", "--control", "/control"], f"vhostcomm={beside}"),
        (["systemd"], f"ExecStart={beside} serve"),
    ):
        printed = subprocess.run(
            [sys.executable, "-m", "vhostcomm", "snippet", words[0], "--sock", UUID, *words[1:]],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        assert line in printed.stdout


def setting(name: str, key: str) -> int:
    (value,) = re.findall(rf"^{key}=([0-9]+)$", units.text(name), re.MULTILINE)
    return int(value)


@pytest.mark.parametrize("name", SERVES)
def test_slow_restarts_never_reach_the_start_limit(name: str) -> None:
    """Starts by QEMU's waiting connection ignore RestartSec=, and reach the limit; slow restarts never do."""
    interval, burst = setting(name, "StartLimitIntervalSec"), setting(name, "StartLimitBurst")
    assert interval > 0, "no limit at all"
    assert interval // setting(name, "RestartSec") + 1 < burst


@pytest.mark.parametrize(
    ("name", "guest", "for_all"),
    [
        (units.RUN, "nas", True),
        (units.RUN, "x" * 21, True),
        (units.RUN, "x" * 22, False),
        (units.RUN, "x" * 64, False),
        (units.RUN, "a.b", False),
        (units.SERVE_ONE, UUID, False),
        (units.SERVE_ONE, UUID.replace("d", "0"), False),
    ],
)
def test_each_guest_has_a_user_of_its_own(name: str, guest: str, for_all: bool) -> None:
    """If the instance can't be part of a user's name, the unit's file is for this instance alone."""
    (user,) = re.findall(r"^User=(.*)$", units.text(name, guest=guest), re.MULTILINE)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,30}", user.replace("%i", guest)), user
    assert ("%i" in user) is for_all
    assert units.file(name, guest) == (name if for_all else units.instance(name, guest))
    assert for_all or user not in {units.user(each, other) for each in (units.RUN, name) for other in ("a.c", "y" * 64)}


def test_instances_have_the_name_of_their_guest() -> None:
    assert units.instance(units.SERVE_ONE, UUID.upper()) == f"vhostcomm@{UUID}.service"
    assert units.instance(units.SOCKET, "nas") == "vhostcomm-guest@nas.socket"
    for name, guest in ((units.SERVE, "nas"), (units.SERVE_ONE, "nas"), (units.RUN, "a/b"), (units.RUN, "")):
        with pytest.raises(ValueError, match=r"not for one|has|empty"):
            units.instance(name, guest)


@pytest.mark.parametrize("name", units.NAMES)
def test_a_guests_folders_have_its_name(name: str) -> None:
    """The units' own texts name the same folders."""
    place = units.place(name, "nas", UUID)
    base = re.sub("@[^.]*", "@", place.service)
    who = GUESTS.get(base, "")
    (folder,) = re.findall(r"^RuntimeDirectory=(.*)$", units.text(base), re.MULTILINE)
    assert str(place.runtime) == "/run/" + folder.replace("%i", who)
    assert place.service == (base.replace("@", f"@{who}") if "@" in base else base)
    if name.endswith(".socket"):
        (listens,) = re.findall(r"^ListenStream=(.*)$", units.text(name), re.MULTILINE)
        assert str(place.sock) == listens.replace("%i", GUESTS[name])
        assert f"Service={base}" in units.text(name) or base == name.replace(".socket", ".service")
    else:
        assert place.sock == (place.runtime / UUID if name == units.SERVE_ONE else None)
    assert place.name == (UUID if base == units.SERVE_ONE else "nas")


def test_names_of_other_units_are_rejected() -> None:
    for name, guest, uuid in (("a.service", "nas", UUID), (units.SERVE_ONE, "nas", "1"), (units.SOCKET, "a/b", UUID)):
        with pytest.raises(ValueError, match=r"no unit|UUID|has"):
            units.place(name, guest, uuid)


def words_of(name: str) -> list[str]:
    """The arguments of a unit's command, with an instance filled in."""
    (line,) = re.findall(r"^ExecStart=/usr/bin/vhostcomm (.*)$", units.text(name), re.MULTILINE)
    return str(line).replace("%i", GUESTS.get(name, "")).replace("$RUN", "--boot /nowhere --dry-run").split()


@pytest.mark.slow
def test_the_commands_of_units_are_valid(tmp_path: Path) -> None:
    """Each command fails only because a file is missing."""
    for name, what in (
        (units.SERVE, "/etc/vhostcomm/vhostcomm.toml: No such file"),
        (units.SERVE_ONE, f"{tmp_path}/no/such"),
        (units.RUN, "/nowhere"),
    ):
        environment = {"PATH": "/usr/bin:/bin", "RUNTIME_DIRECTORY": str(tmp_path / "no/such")}
        ended = run_vhostcomm(*words_of(name), env=environment, cwd=Path.cwd())
        assert what in ended.stderr, ended
        assert "unknown" not in ended.stderr.lower()
