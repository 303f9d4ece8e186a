"""The captures in ``captures/`` are the same byte for byte after being read or replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.captures.make_golden import ANSWERS, FOLDER, GOLDEN
from tests.captures.replaying import replay
from vchannel import NEED_DATA, Connection, FrameRefused, HostCommand, Request, Role
from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Origin, format_capture
from vhostcomm.capture.reading import read_capture

FILES = sorted(FOLDER.glob("*.jsonl"))


def load(path: Path) -> Capture:
    with path.open() as lines:
        return read_capture(lines, str(path))


def text(capture: Capture) -> str:
    return "".join(format_capture(capture))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_captures_are_unchanged_after_reading_and_writing(path: Path) -> None:
    assert text(load(path)) == path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_captures_are_unchanged_after_a_recorded_replay(path: Path) -> None:
    """A host's connection that receives the guest's bytes and sends the host's answers records the same file."""
    capture = load(path)
    assert text(Capture(capture.header, tuple(replay(forgetful(capture), Connection(Role.HOST))))) == text(
        forgetful(capture)
    )


def forgetful(capture: Capture) -> Capture:
    """Remove the remarks on assumed fields, which are the only part of a capture that was not on the wire."""
    return Capture(
        capture.header,
        tuple(
            FrameRecord(record.time, record.direction, record.frame, record.refused)
            if isinstance(record, FrameRecord)
            else record
            for record in capture.records
        ),
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_captures_are_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == text(GOLDEN[name]())


def test_every_reconstructed_capture_has_its_maker() -> None:
    reconstructed = {path.name for path in FILES if load(path).header.origin is Origin.RECONSTRUCTED}
    assert reconstructed == set(GOLDEN)


@pytest.mark.parametrize("name", ["boot-2022-04-25", "graceful-stop"])
def test_assumed_fields_are_named(name: str) -> None:
    """Request ids and the content of a guest's answers were never published."""
    for record in load(FOLDER / f"{name}.jsonl").records:
        assert isinstance(record, FrameRecord)
        assert {"request_id", "guest_uuid"} <= set(record.assumed)
        if record.direction is Direction.TO_HOST and record.frame.is_response:
            assert {"guest_id", "data", "response_length", "sub_command"} <= set(record.assumed)


def test_every_command_is_in_a_golden_capture() -> None:
    capture = load(FOLDER / "every-command.jsonl")
    asked = {
        record.frame.command
        for record in capture.records
        if isinstance(record, FrameRecord) and record.direction is Direction.TO_HOST
    }
    assert asked >= set(HostCommand)


def test_damaged_frames_are_refused_as_the_capture_says() -> None:
    """The codec refuses frames for the fields and values of the file, and every good question has its answer."""
    capture = load(FOLDER / "damage.jsonl")
    connection = Connection(Role.HOST)
    refused = []
    for record in capture.records:
        if record.direction is Direction.TO_HOST:
            connection.receive_data(record.raw)
            while (event := connection.next_event()) is not NEED_DATA:
                if isinstance(event, FrameRefused) and event.refusal.field != "is_response":
                    refused.append((event.refusal.field, event.refusal.value))
    assert ("request_length", -1) in refused
    assert ("request_length", 4033) in refused
    assert ("response_length", 1 << 20) in refused
    assert ("needs_response", 2) in refused
    asked = [
        record for record in capture.records if isinstance(record, FrameRecord) and record.frame.needs_response == 1
    ]
    answered = [record for record in capture.records if record.direction is Direction.TO_GUEST]
    assert len([record for record in asked if not record.refused]) == len(answered)


def test_replay_with_other_answers_differs_only_in_them() -> None:
    capture = load(FOLDER / "every-command.jsonl")

    def answer(request: Request) -> bytes:
        known = ANSWERS.get(request.command, b"") if isinstance(request.command, HostCommand) else b""
        return b"MINE\0" if request.command is HostCommand.GUEST_SERIAL else known

    again = Capture(capture.header, tuple(replay(capture, Connection(Role.HOST), answer)))
    assert [difference.what for difference in compare(capture, again)] == [
        "GUEST_SERIAL response_length: 14 | 5",
        "GUEST_SERIAL data: '0000000000000\\x00' | 'MINE\\x00'",
    ]


def test_replay_to_a_guests_connection() -> None:
    """A guest's connection receives the host's side of the same capture."""
    capture = forgetful(load(FOLDER / "graceful-stop.jsonl"))
    assert tuple(replay(capture, Connection(Role.GUEST))) == capture.records
