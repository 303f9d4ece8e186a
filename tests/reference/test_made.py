"""The references that are generated from the program are current, complete and right."""

from __future__ import annotations

import io
import re
import tomllib
from pathlib import Path
from typing import Any, TypeGuard

import attrs
import pytest
from rich.console import Console

import vhostcomm.errors
from tests.cli.verbs import all_verbs
from tools.made import PAGES, ROOT, made
from tools.settings import Setting, all_settings
from vhostcomm.cli.app import app
from vhostcomm.config.identity import default_text
from vhostcomm.config.load import load
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import SECTIONS, settings
from vhostcomm.errors import VhostcommError
from vhostcomm.qemu.ending import EndKind

COMMANDS = (ROOT / "docs" / "commands.md").read_text()
ALL = list(all_verbs())
VERBS = [words for words in ALL if words not in {each[:-1] for each in ALL}]
SETTINGS = list(all_settings())
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_committed_references_are_up_to_date(path: Path) -> None:
    assert path.read_text() == made(path), f"{path.name} is old: make docs"


@pytest.mark.slow
@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_flag_in_help_is_documented(words: tuple[str, ...]) -> None:
    printed = io.StringIO()
    app.help_print([*words], console=Console(file=printed, width=100))  # as `--help` does
    named = re.findall(r"^  ((?:--?[a-z-]+|[A-Z-]+)(?:, --?[a-z-]+)*)", printed.getvalue(), re.MULTILINE)
    flags = {flag for line in named for flag in FLAG.findall(line)}
    own = section(f"{'#' * len(['vhostcomm', *words])} vhostcomm {' '.join(words)}")
    if "as for [`vhostcomm serve`](#vhostcomm-serve)" in own:
        own += section("## vhostcomm serve")
    listed = {flag for line in re.findall(r"^\* `([^`]*)`", own, re.MULTILINE) for flag in FLAG.findall(line)}
    assert flags <= listed


def section(heading: str) -> str:
    assert f"\n{heading}\n" in COMMANDS
    return COMMANDS.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def test_settings_have_the_placeholders_of_their_flags() -> None:
    flag = re.compile(r"^\* `([^`]+)`", re.MULTILINE)
    shown = {text.replace("[", "").replace("]", "") for text in flag.findall(COMMANDS)}
    given = {each.flag.replace("[", "").replace("]", "") for each in SETTINGS if each.flag}
    assert not {flag for flag in given if not any(text.endswith(flag) for text in shown)}


@pytest.mark.parametrize("each", SETTINGS, ids=lambda each: each.name)
def test_examples_of_settings_are_valid(each: Setting, tmp_path: Path) -> None:
    guests = "" if each.section == "guests.NAME" else "[guests.nas]\nsock = '/tmp/nas'\n"
    token = "control_token = 'a-long-random-secret'\n" if each.key == "control" else ""
    file = tmp_path / "vhostcomm.toml"
    file.write_text(f"[{each.section.replace('NAME', 'nas')}]\n{each.key} = {each.toml}\n{token}{guests}")
    found = load(file, environment={})
    assert len(found.guests) == 1
    if each.environment:
        name, _, value = each.environment.partition("=")
        load(socks=["/tmp/guest"], environment={name: value.strip("'")})


def test_every_key_of_the_models_is_documented_once() -> None:
    wanted = [f"{section}.{key}" for section, model in SECTIONS.items() for key in settings(model)]
    wanted += [f"guests.NAME.machine.{key}" for key in settings(MachineSettings)]
    assert sorted([*wanted, "guests.NAME.sock", "guests.NAME.qmp", "serve.watch"]) == sorted(
        each.name for each in SETTINGS
    )
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert [page.count(f"\n### {each.name}\n") for each in SETTINGS] == [1] * len(SETTINGS)


def test_the_example_at_the_head_is_valid(tmp_path: Path) -> None:
    example, *_ = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    file = tmp_path / "vhostcomm.toml"
    file.write_text(example)
    assert [guest.name for guest in load(file, environment={}).guests] == list(tomllib.loads(example)["guests"])


@pytest.mark.parametrize(
    "each", [each for model in SECTIONS.values() for each in settings(model).values()], ids=lambda each: each.name
)
def test_defaults_are_shown_as_they_can_be_written(each: attrs.Attribute[Any]) -> None:
    default, kind = default_text(each), each.metadata["kind"]
    if default:
        assert kind.parse(default) == kind.parse(tomllib.loads(f"x = {kind.toml(each.default)}")["x"]) == each.default
    else:
        assert each.default == ""
    assert re.fullmatch(r"[A-Z]+|[A-Z]+\|[A-Z]+|[a-z|]+", each.metadata["word"])


def test_every_exit_status_is_documented() -> None:
    errors = {VhostcommError.exit_code} | {each.exit_code for each in vars(vhostcomm.errors).values() if is_error(each)}
    _, of_serve, of_run = re.split(r"^Of .*:$", section("## Exit status"), flags=re.MULTILINE)[1:]
    for words, listed, wanted in (("run", of_run, {kind.exit_code for kind in EndKind}), ("serve", of_serve, {0})):
        assert {int(status) for status in re.findall(r"^\* `(\d+)`", listed, re.MULTILINE)} == wanted | errors
        help_text = section(f"## vhostcomm {words}").partition("Exit status:")[2].partition("For example")[0]
        assert {int(status) for status in re.findall(r"\b\d+\b", help_text)} == wanted | errors


def is_error(each: object) -> TypeGuard[type[VhostcommError]]:
    return isinstance(each, type) and issubclass(each, VhostcommError)
