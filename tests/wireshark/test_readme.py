"""The README.md of the dissector is right about filters, fields, the folder and commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.captures.test_golden import FILES, load
from tests.wireshark.looking import (
    DISSECTOR,
    EXPERTS,
    FIELDS,
    UNPRIVILEGED,
    command,
    environment,
    exported,
    made,
    tshark,
)
from vchannel import HostCommand, Request
from vhostcomm.capture.format import Direction, FrameRecord, SkippedRecord

pytestmark = pytest.mark.needs("tshark")

README = (DISSECTOR.parent / "README.md").read_text()
FILTERS = [
    found[1].replace(r"\|", "|")
    for found in re.finditer(r"^\| [^|]+ \| `(.+)` \|$", README.split("## Filters worth knowing")[1], re.MULTILINE)
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All golden captures in one file, and a question without an answer, which they lack."""
    folder = tmp_path_factory.mktemp("readme")
    asked = FrameRecord(0, Direction.TO_HOST, Request.of(HostCommand.HOST_MODEL, request_id=1).frame)
    files = [exported(folder / f"{path.stem}.pcapng", load(path)) for path in FILES]
    files.append(exported(folder / "unanswered.pcapng", made(asked)))
    subprocess.run(["mergecap", "-w", folder / "all.pcapng", *files], check=True)
    return folder / "all.pcapng"


def numbers(everything: Path, wanted: str) -> set[int]:
    shown = tshark(everything.parent, "-2", "-r", everything, "-Y", wanted, "-T", "fields", "-e", "frame.number")
    return set(map(int, shown.split()))


def test_readme_has_twelve_filters() -> None:
    assert len(FILTERS) == 12


@pytest.mark.parametrize("wanted", FILTERS)
def test_each_filter_selects_some_packets(everything: Path, wanted: str) -> None:
    found = numbers(everything, wanted)
    assert 0 < len(found) < sum(len(load(path).records) for path in FILES)


def test_filters_of_the_readme_find_frames(everything: Path) -> None:
    records = [record for path in FILES for record in load(path).records]
    damage = [record for record in records if isinstance(record, SkippedRecord) or record.refused]
    assert len(numbers(everything, FILTERS[10])) == len(damage)
    assert "skipped" in FILTERS[10]


def test_every_field_and_note_is_documented() -> None:
    ours = [field for field in FIELDS if field.startswith("vchannel.") and ".expert." not in field]
    header = {f"vchannel.{name}" for name in re.findall(r"^\| \d+ \| \d+ \| \w+ \| `(\w+)`", _protocol(), re.MULTILINE)}
    assert len(header) == 11
    assert [field for field in ours if field not in header and f"`{field}`" not in README] == []
    table = README.split("| expert info ")[1].split("\n\n")[0]
    assert [name for name in EXPERTS if f"`{name}`" not in table] == []
    assert set(re.findall(r'^tells\("(\w+)"', DISSECTOR.read_text(), re.MULTILINE)) == set(EXPERTS)


def _protocol() -> str:
    return (DISSECTOR.parents[1] / "README.md").read_text()


def test_tshark_loads_the_dissector_from_its_plugin_folder(everything: Path, tmp_path: Path) -> None:
    """tshark finds the dissector there without a flag."""
    plugins = tmp_path / ".local/lib/wireshark/plugins"
    plugins.mkdir(parents=True)
    shutil.copy(DISSECTOR, plugins)
    ended = subprocess.run(
        [*UNPRIVILEGED, "tshark", "-r", everything, "-c", "1", "-T", "fields", "-e", "_ws.col.Protocol"],
        env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout == "vchannel\n"


def test_capture_is_read_from_a_pipe(everything: Path) -> None:
    with everything.open("rb") as stream:
        ended = subprocess.run(
            command("-r", "-", "-Y", "vchannel", "-T", "fields", "-e", "frame.number"),
            env=environment(everything.parent), stdin=stream, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert len(ended.stdout.split()) == 1 + sum(len(load(path).records) for path in FILES)
