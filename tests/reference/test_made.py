"""What is made from the program: it is what is committed, it is complete, and what it says is so."""

from __future__ import annotations

import io
import re
import tomllib
from pathlib import Path
from typing import TypeGuard

import pytest
from rich.console import Console

import vhostcomm.errors
from tools.made import MAN, ROOT, made
from tools.settings import Setting, all_settings
from tools.texts import RUN_EXIT_STATUS, SERVE_EXIT_STATUS
from tools.verbs import Verb, command_line
from vhostcomm.cli.app import app
from vhostcomm.config.formats import default_text, format_of
from vhostcomm.config.load import load
from vhostcomm.config.machine import MachineSettings
from vhostcomm.config.models import SECTIONS, settings
from vhostcomm.errors import VhostcommError
from vhostcomm.qemu.ending import EXIT_CODES

MADE = made()
VERBS = [verb for verb in command_line().all() if not verb.verbs]
SETTINGS = list(all_settings())
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_what_is_committed_is_what_is_made(path: Path) -> None:
    assert path.read_text() == MADE[path], f"{path.name} is old: make docs"


def test_no_page_is_left_of_a_verb_that_is_gone() -> None:
    assert {path for path in MADE if MAN in path.parents} == set(MAN.glob("*/*"))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_flag_that_help_tells_is_documented(verb: Verb) -> None:
    printed = Console(file=io.StringIO(), width=100)
    app.help_print(verb.words[1:], console=printed)  # as `--help` does
    help_text = printed.file.getvalue()  # type: ignore[attr-defined]
    named = re.findall(r"^  ((?:--?[a-z-]+|[A-Z-]+)(?:, --?[a-z-]+)*)", help_text, re.MULTILINE)
    flags = {flag for line in named for flag in FLAG.findall(line)} - {"--help", "-h", "--version"}
    arguments = {flag.names[0].lower() for group in verb.groups for flag in group.flags if flag.is_argument}
    flags -= {f"--{each}" for each in arguments}  # what is shown as FILE --file
    told = {name for group in verb.groups for flag in group.flags for name in flag.names if name.startswith("-")}
    assert flags == told - {f"--{each}" for each in arguments}
    page = (MAN / "man1" / f"{'-'.join(verb.words[:2])}.1").read_text().replace("\\-", "-")
    assert all(flag in page for flag in flags)
    documented = (ROOT / "docs" / "commands.md").read_text()
    own = documented.partition(f"\n{'#' * len(verb.words)} {verb.name}\n")[2].partition("\n#")[0]
    if "[setting](configuration.md)" in own:
        own += (ROOT / "docs" / "configuration.md").read_text()
    assert all(flag in own for flag in flags)


@pytest.mark.parametrize("each", SETTINGS, ids=lambda each: each.name)
def test_examples_of_settings_are_taken(each: Setting, tmp_path: Path) -> None:
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


def test_the_example_at_the_head_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    file = tmp_path / "vhostcomm.toml"
    file.write_text(example)
    assert [guest.name for guest in load(file, environment={}).guests] == list(tomllib.loads(example)["guests"])


@pytest.mark.parametrize(
    "each", [each for model in SECTIONS.values() for each in settings(model).values()], ids=lambda each: each.name
)
def test_defaults_are_told_as_they_can_be_written(each: object) -> None:
    default = default_text(each)  # type: ignore[arg-type]
    if default:
        assert each.metadata["parse"](default) == each.default  # type: ignore[attr-defined]
    else:
        assert each.default == ""  # type: ignore[attr-defined]
    assert re.fullmatch(r"[A-Z]+|[A-Z]+\|[A-Z]+|[a-z|]+", format_of(each).word)  # type: ignore[arg-type]


def test_every_exit_status_is_told() -> None:
    errors = {VhostcommError.exit_code} | {each.exit_code for each in vars(vhostcomm.errors).values() if is_error(each)}
    assert {int(status) for status, _ in RUN_EXIT_STATUS} == set(EXIT_CODES.values()) | errors
    assert {int(status) for status, _ in SERVE_EXIT_STATUS} == {0} | errors


def is_error(each: object) -> TypeGuard[type[VhostcommError]]:
    return isinstance(each, type) and issubclass(each, VhostcommError)


@pytest.mark.parametrize("name", ["commands.md", "configuration.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / "docs" / name
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        heads = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, link
