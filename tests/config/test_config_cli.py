"""`vhostcomm config`: the template and the active values."""

from __future__ import annotations

import json
import shlex
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_load import SERIAL, config
from tests.serving import ENVIRONMENT, Serving, fake_guest, run_vhostcomm
from vhostcomm.config.identity import derived_uuid, flag_of
from vhostcomm.config.load import load
from vhostcomm.config.models import SECTIONS, settings
from vhostcomm.config.template import template


@pytest.mark.slow
def test_init_writes_what_load_reads(tmp_path: Path) -> None:
    path = tmp_path / "a new.toml"
    written = run_vhostcomm("config", "init", path)
    assert written.returncode == 0
    assert path.read_text() == template()
    # Only defaults, and one guest, because a configuration needs one.
    environment = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    assert load(path, environment=environment) == load(socks=[f"{tmp_path}/run/nas"], environment=environment)
    hint = shlex.split(written.stdout.partition("next: vhostcomm ")[2])
    assert hint == ["serve", "--config", str(path)]
    with Serving(*hint[1:], env=ENVIRONMENT | environment), fake_guest(tmp_path / "run" / "nas") as guest:
        assert guest.serial() == "0" * 13
    inside = run_vhostcomm("config", "init", path.parent / "a b/c.toml")
    assert inside.stderr.endswith(f"make it: mkdir -p '{path.parent}/a b'\n")
    again = run_vhostcomm("config", "init", path)
    assert again.returncode == 1
    assert "already exists" in again.stderr


def test_template_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/vhostcomm")
    assert max(map(len, template().splitlines())) <= 80


def test_template_is_valid_with_every_line_uncommented(tmp_path: Path) -> None:
    body = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and "`" not in line else line
        for line in template().splitlines()
    )
    document = tomllib.loads(body)
    assert set(document) == {"host", "guest", "guests", "serve"}
    for section, model in SECTIONS.items():
        assert set(document[section]) - {"watch"} == set(settings(model)), section
    body = body.replace('watch = ["/run/guests"]', "")  # an API of one guest excludes a watched folder
    loaded = load(config(tmp_path, body), environment={})
    assert loaded.guests[0].name == "nas"
    assert loaded.service.frame_rate == 2000


def test_show_prints_each_value_and_its_source(tmp_path: Path) -> None:
    path = config(tmp_path, f'[guests.nas]\nsock = "{tmp_path}/nas"\nserial = "{SERIAL}"\n')
    environment = ENVIRONMENT | {"VHOSTCOMM_HOST_MODEL": "box"}
    words: list[str | Path] = ["config", "show", "--config", path, "--host-serial", SERIAL]
    shown = run_vhostcomm(*words, env=environment)
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["serial", SERIAL, "--host-serial"] in lines
    assert ["serial", SERIAL, f"{path}:", "guests.nas.serial"] in lines
    assert ["model", "box", "environment", "VHOSTCOMM_HOST_MODEL"] in lines
    assert ["update_deadline", "never", "default"] in lines
    values: dict[str, Any] = json.loads(run_vhostcomm(*words, "--json", env=environment).stdout)
    assert values["guests.nas"]["serial"] == {"value": SERIAL, "source": f"{path}: guests.nas.serial"}
    assert values["serve"]["socket_mode"] == {"value": "0600", "source": "default"}


@pytest.mark.slow
def test_show_prints_the_values_of_unlisted_guests(tmp_path: Path) -> None:
    path = config(tmp_path, f'[guest]\nvcpus = 3\n[guests.nas]\nsock = "/x/nas"\nserial = "{SERIAL}"\n')
    for words in (["--config", path, "--watch", tmp_path], ["--vcpus", "3"]):
        shown = run_vhostcomm("config", "show", *words)
        assert "\n[guest]\n" in shown.stdout
        section = shown.stdout.partition("\n[guest]\n")[2].partition("[")[0]
        rows = [line.split() for line in section.splitlines()]
        assert [row[:2] for row in rows if row] == [
            ["uuid", derived_uuid("g", "0" * 13)],
            ["serial", "0" * 13],
            ["cpu", "QEMU,"],
            ["vcpus", "3"],
            ["update_deadline", "never"],
        ]
        assert "the socket's name if that is one, else derived" in section
        assert json.loads(run_vhostcomm("config", "show", *words, "--json").stdout)["guest"]["vcpus"]["value"] == 3
    assert "[guest]" not in run_vhostcomm("config", "show", "--config", path).stdout


def test_show_warns_on_standard_error() -> None:
    shown = run_vhostcomm("config", "show", "--sock", "/x/a", "--sock", "/x/b")
    assert shown.returncode == 0
    assert "the guests a and b have the same serial number" in shown.stderr
    assert "have the same" not in shown.stdout
    assert run_vhostcomm("config", "show", "--sock", "/x/a").stderr == ""


def test_a_file_that_python_cannot_parse_is_rejected_at_a_reload(tmp_path: Path) -> None:
    path = config(tmp_path, f'[guests.nas]\nsock = "{tmp_path}/nas"\n')
    with Serving("--config", path) as daemon, fake_guest(tmp_path / "nas") as guest:
        for bad in (f"[host]\nbuild = {'9' * 5000}", f"x = {'[' * 5000}", '[serve]\nwatch = ["\\u0000"]'):
            path.write_text(bad)
            daemon.send_signal(signal.SIGHUP)
            assert str(path) in daemon.event("reload rejected, the old configuration stays")["why"]
            assert guest.serial() == "0" * 13


def test_an_empty_folder_to_watch() -> None:
    ended = run_vhostcomm("serve", "--watch", "")
    assert ended.returncode == 2
    assert "--watch is '': it is empty; for example: /run/guests" in ended.stderr


def test_every_setting_is_a_flag_in_the_help() -> None:
    shown = run_vhostcomm("serve", "--help").stdout
    for model in SECTIONS.values():
        for each in settings(model).values():
            assert f"--{flag_of(each)} " in shown


def test_validate_rejects_what_other_machines_could_reach(tmp_path: Path) -> None:
    path = config(tmp_path, '[serve]\nweb = "0.0.0.0:8470"\n[guests.nas]\n')
    for verb in ("config validate", "serve"):
        rejected = run_vhostcomm(
            *verb.split(), "--config", path, env=ENVIRONMENT | {"RUNTIME_DIRECTORY": str(tmp_path)}
        )
        assert (rejected.returncode, rejected.stdout) == (2, "")
        assert f"{path}: serve.web is 0.0.0.0:8470: " in rejected.stderr
