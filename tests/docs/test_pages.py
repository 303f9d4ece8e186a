"""Every command in the documentation prints the output that the page shows."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.control.controlled import INFORMATION, Answers, answering
from tests.docs.commands import check, wrong_in_prose
from tests.docs.given import GIVEN
from tests.docs.pages import ROOT, Block, PageError, blocks, inline_code, pages
from tests.docs.shell import Shell
from tests.docs.virsh import virsh
from tests.e2e.launched import Images
from tests.install import pats
from tests.serving import is_listening, until
from vchannel import GuestCommand

ANSWERS: Final[Answers] = {
    GuestCommand.GET_INFORMATION: INFORMATION,
    GuestCommand.GET_UPTIME: b"4711\0",
    GuestCommand.GET_IP: b"10.0.2.15\0",
    GuestCommand.REBOOT: b"",
    GuestCommand.FS_FREEZE: b"",
    GuestCommand.FS_UNFREEZE: b"",
    GuestCommand.POWEROFF: lambda: None,
}
"""Answers of the guest on pages that boot none. Its power-off ends its connection."""

PAGES: Final = {str(path.relative_to(ROOT)): path.read_text() for path in pages()}


def _blocks(page: str) -> list[Block]:
    """Return a page's blocks; none if it violates the convention, which another test reports."""
    try:
        return list(blocks(PAGES[page], page))
    except PageError:
        return []


BLOCKS: Final = {page: _blocks(page) for page in PAGES}
NOT_RUN: Final = [block for found in BLOCKS.values() for block in found if "not run" in block.marks]
RUN: Final = {
    page: run
    for page, found in BLOCKS.items()
    if (run := [each for each in found if each.runs or "file" in each.marks])
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, because a socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="docs-") as made:
        yield Path(made)


@pytest.mark.parametrize("page", PAGES)
def test_pages_follow_the_convention(page: str) -> None:
    """Every block is of a known kind, and commands are only in blocks that are run."""
    assert len(list(blocks(PAGES[page], page))) == len(re.findall(r"^ *```", PAGES[page], re.MULTILINE)) // 2


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_pages_commands_print_its_output(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    with Shell(folder) as shell, ExitStack() as guests:
        for block in RUN[page]:
            _prepare(block, shell, guests, request)
            for command in block.commands:
                shell.assert_prints(command, int(block.marks.get("status", 0)), block.where)
            if block.kind == "python":
                GIVEN[block.marks["given"]](block.content)
    assert not (left := shell.left_behind()), f"{page}: its clean-up does not remove {', '.join(left)}"


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block.where}: {block.marks['not run']}")
def test_blocks_that_are_not_run_have_valid_commands(block: Block) -> None:
    assert block.marks["not run"], f"{block.where}: say why it isn't run"
    assert block.commands, f"{block.where}: there is no command in it"
    for command in block.commands:
        check(command.text)


@pytest.mark.parametrize("page", PAGES)
def test_verbs_and_flags_in_prose_exist(page: str) -> None:
    wrong = {f"{page}:{line}": why for line, code in inline_code(PAGES[page]) if (why := wrong_in_prose(code))}
    assert not wrong


def _prepare(block: Block, shell: Shell, guests: ExitStack, request: pytest.FixtureRequest) -> None:
    with shell.providing():
        if "images" in block.marks:
            _copy(request.getfixturevalue("images"), shell.folder)
        if "pat" in block.marks:
            pats.pat(shell.folder)
        if "stand-in" in block.marks:
            request.getfixturevalue("images")  # else the page's command would wait for the build
        if "libvirt" in block.marks:
            guests.enter_context(virsh(shell.folder, shell.folder / "bin"))
    if "guest" in block.marks:
        where = Path(shell.ours(block.marks["guest"]))
        until(lambda: is_listening(where), str(where))
        guests.enter_context(answering(where, ANSWERS))
    if "file" in block.marks:
        (shell.folder / shell.ours(block.marks["file"])).write_text(shell.ours(block.content))


def _copy(images: Images, folder: Path) -> None:
    """Copy the stand-in's disks under the page's names, because guests share the cached images."""
    for name, path in {"synoboot.img": images.boot, "system.img": images.system, "data.img": images.data}.items():
        subprocess.run(["cp", "--sparse=always", path, folder / name], check=True, timeout=60)
