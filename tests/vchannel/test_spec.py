"""The tables and examples of ``protocol/README.md`` match the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vchannel import (
    FRAME_SIZE,
    HEADER_FIELDS,
    CpuInfo,
    Frame,
    GuestCommand,
    HostCommand,
    HostVersion,
    Known,
    NetworkResult,
    Request,
    VmmVersion,
    encode_text,
)
from vchannel.commands import Kind
from vchannel.frame import HEADER

SPEC = (Path(__file__).parents[2] / "protocol" / "README.md").read_text()


def chapter(title: str) -> str:
    """Return the text from the heading with that beginning to the next heading of the same level."""
    found = re.search(rf"^(#+) {re.escape(title)}.*?(?=^\1 |\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert found, f"no chapter {title!r}"
    return found[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without the header row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def hexdump(text: str) -> bytes:
    """Return the bytes of a `hexdump -C`."""
    raw = b""
    repeat = False
    for line in text.strip().splitlines():
        if line == "*":
            repeat = True
            continue
        offset = int(line[:8], 16)
        if repeat:
            raw += raw[-16:] * ((offset - len(raw)) // 16)
            repeat = False
        assert offset == len(raw)
        raw += bytes.fromhex(line[8:].partition("|")[0])
    return raw


def test_the_byte_table_is_the_layout() -> None:
    table = rows(chapter("2. The frame"))[: len(HEADER_FIELDS)]
    assert [row[3] for row in table] == list(HEADER_FIELDS)
    offset = 0
    for row, code in zip(table, ["Q", "16s", "Q", *"iiiiiiii"], strict=True):
        size = HEADER.__class__(f"<{code}").size
        assert (int(row[0]), int(row[1])) == (offset, size), row[3]
        offset += size


def test_the_worked_example() -> None:
    asked, answered = (hexdump(block) for block in re.findall(r"```hexdump\n(.*?)```", SPEC, re.DOTALL))
    assert len(asked) == len(answered) == FRAME_SIZE
    request = Request.of(HostCommand.GUEST_SERIAL, request_id=0xC0FFEE01)
    assert asked == request.raw
    assert answered == request.reply(encode_text("0000000000000")).raw
    assert Frame.decode(answered).response_length == 14


@pytest.mark.parametrize(
    ("title", "namespace", "grade"),
    [("3. Guest → host", HostCommand, 4), ("4. Host → guest", GuestCommand, 4)],
)
def test_the_namespaces(title: str, namespace: type[HostCommand | GuestCommand], grade: int) -> None:
    table = rows(chapter(title))
    assert [(int(row[0]), row[1]) for row in table] == [(each.value, each.name) for each in namespace]
    assert [Known(row[grade]) for row in table] == [each.known for each in namespace]
    assert [row[3] == "**yes**" for row in table if title.startswith("4")] == [
        each.dangerous for each in namespace if namespace is GuestCommand
    ]


def test_the_json_of_the_host() -> None:
    payloads: dict[int, HostVersion | CpuInfo | VmmVersion | NetworkResult] = {
        4: HostVersion(),
        7: CpuInfo(),
        8: VmmVersion(),
        10: NetworkResult(),
    }
    for number, text, size, length in rows(chapter("5.1 JSON of the host")):
        data = payloads.pop(int(number)).to_data()
        assert data == encode_text(text)
        assert (len(data) - 1, len(data)) == (int(size), int(length))
    assert not payloads


def test_only_commands_of_the_host_can_be_dangerous() -> None:
    assert [each.name for each in GuestCommand if each.dangerous] == [
        "WEBAPI", "RESET", "DELETE_VDISK", "GET_DEFAULT_PW",
    ]  # fmt: skip
    assert not any(each.dangerous for each in HostCommand)


@pytest.mark.parametrize("command", [*HostCommand, *GuestCommand])
def test_every_command_has_types_of_data(command: HostCommand | GuestCommand) -> None:
    assert command.carries
    assert isinstance(command.asks, Kind)
    assert isinstance(command.answers, Kind)
    assert type(command)(command.value) is command
    assert command == command.value


def test_command_numbers_differ_by_direction() -> None:
    for number in {each.value for each in HostCommand} & {each.value for each in GuestCommand}:
        assert HostCommand(number) != GuestCommand(number)
    assert len({HostCommand.NETWORK_RESULT, GuestCommand.GET_INFORMATION}) == 2
