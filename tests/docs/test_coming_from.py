"""The table of flags for users of another tool has every flag, with its default."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.pages import ROOT
from vhostcomm.qemu_host.flags import FLAGS

PAGE: Final = (ROOT / "docs/coming-from.md").read_text()
ROWS: Final = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.split("## Flag by flag")[1].split("## ")[0].splitlines()
    if line.startswith(("| `", "| derived"))
][1:]
HELP: Final = {"help", "h"}


def flags_in(cell: str) -> set[str]:
    return set(re.findall(r"`-(\w+)", cell))


def test_every_flag_is_in_the_table() -> None:
    assert set().union(*(flags_in(row[0]) | flags_in(row[1]) for row in ROWS)) | HELP == set(FLAGS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_default_of_a_flag_matches_the_table(row: list[str]) -> None:
    (name,) = flags_in(row[0].split("derived")[0]) or flags_in(row[1])
    default = FLAGS[name].default
    documented = row[3].split(";")[0].strip("`")
    assert documented.replace("13 zeros", "0" * 13).replace("zeros", "00:00:00:00:00:00") == default
