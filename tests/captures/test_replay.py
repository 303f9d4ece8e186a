from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.make_golden import FOLDER, request, response
from tests.captures.replaying import replay
from tests.captures.test_format import HEADER
from tests.captures.test_golden import FILES, forgetful, load
from tests.captures.test_record import Live
from vchannel import Connection, Frame, Request, Role, SkipReason
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record, SkippedRecord, format_capture
from vhostcomm.capture.reading import read_capture

TO_HOST, TO_GUEST = Direction.TO_HOST, Direction.TO_GUEST


def played(records: Iterable[Record], role: Role = Role.HOST) -> list[Record]:
    return list(replay(Capture(HEADER, tuple(records)), Connection(role)))


def stream(records: Iterable[Record], direction: Direction) -> bytes:
    return b"".join(record.raw for record in records if record.direction is direction)


# -- records of the connection's own end


ASKED = request(7, 5)
ANSWER = response(ASKED, b"0000000000000\0")
UPTIME = request(9, 5)


@pytest.mark.parametrize(
    "own",
    [
        pytest.param([attrs.evolve(ANSWER, needs_response=1)], id="an answer that needs a response"),
        pytest.param([attrs.evolve(ANSWER, padding=b"left over")], id="padding"),
        pytest.param([attrs.evolve(ANSWER, sub_command=2, reserved=3)], id="an answer with fields of its own"),
        pytest.param([ANSWER, ANSWER], id="an answer said twice"),
        pytest.param([attrs.evolve(ANSWER, request_id=8)], id="an answer to nothing"),
        pytest.param([attrs.evolve(UPTIME, sub_command=0, padding=b"x")], id="an odd request"),
        pytest.param([UPTIME, UPTIME], id="a request id that waits already"),
        pytest.param([request(9, 200), request(10, -1), request(11, 13)], id="unknown commands"),
        pytest.param([attrs.evolve(UPTIME, is_response=1)], id="both flags"),
    ],
)
def test_frames_of_the_same_end_are_repeated_unchanged(own: list[Frame]) -> None:
    records: list[Record] = [FrameRecord(0, TO_HOST, ASKED), *(FrameRecord(1, TO_GUEST, frame) for frame in own)]
    assert played(records) == records


def test_skipped_bytes_of_the_same_end_are_repeated() -> None:
    records: list[Record] = [
        SkippedRecord(0, TO_GUEST, b"junk", SkipReason.CLOSED),
        FrameRecord(0, TO_GUEST, attrs.evolve(UPTIME, needs_response=2), refused="needs_response is 2"),
        FrameRecord(1, TO_HOST, ASKED),
    ]
    assert played(records) == records


def test_pipelined_requests_with_one_id_get_both_answers() -> None:
    records: list[Record] = [FrameRecord(0, TO_HOST, ASKED), FrameRecord(0, TO_HOST, ASKED)]
    records += [FrameRecord(1, TO_GUEST, ANSWER), FrameRecord(1, TO_GUEST, ANSWER)]
    assert played(records) == records


def test_requests_of_the_same_end_wait_for_their_responses() -> None:
    connection = Connection(Role.HOST)
    records = (FrameRecord(0, TO_GUEST, UPTIME), FrameRecord(0, TO_GUEST, request(10, 6)))
    answered = FrameRecord(1, TO_HOST, response(UPTIME, b"1\0"))
    assert tuple(replay(Capture(HEADER, (*records, answered)), connection)) == (*records, answered)
    assert [waiting.request_id for waiting in connection.waiting] == [10]


def test_answers_of_the_same_end_can_be_replaced() -> None:
    stale = attrs.evolve(ANSWER, request_id=8)
    records = (FrameRecord(0, TO_HOST, ASKED), FrameRecord(1, TO_GUEST, ANSWER), FrameRecord(2, TO_GUEST, stale))
    again = list(replay(Capture(HEADER, records), Connection(Role.HOST), lambda _: b"MINE\0"))
    assert again == [records[0], FrameRecord(0, TO_GUEST, response(ASKED, b"MINE\0"))]
    assert list(replay(Capture(HEADER, records), Connection(Role.HOST), lambda _: None)) == [records[0]]


# -- records of the other end


@pytest.mark.parametrize("why", [SkipReason.SILENCE, SkipReason.CLOSED])
def test_silence_that_ended_a_frame_is_replayed(why: SkipReason) -> None:
    """Bytes after a silence begin a frame; without the silence, they would complete the half frame."""
    records: list[Record] = [
        SkippedRecord(0, TO_HOST, ASKED.encode()[:2048], why),
        FrameRecord(1, TO_HOST, ASKED),
        FrameRecord(1, TO_GUEST, ANSWER),
    ]
    assert played(records) == records


def test_all_bytes_of_a_truncated_capture_are_replayed() -> None:
    records = [SkippedRecord(0, TO_HOST, b"j" * 100, SkipReason.OUT_OF_STEP)]
    assert played(records) == [attrs.evolve(records[0], why=SkipReason.CLOSED)]


def test_a_frame_sent_while_the_other_end_is_out_of_step_keeps_its_place() -> None:
    live = Live(Role.HOST)
    live.receive(b"j" * 5000)
    live.send(UPTIME.encode())
    live.receive(ASKED.encode())
    records = live.close()
    places = [place for place, record in enumerate(records) if record.direction is TO_GUEST]
    assert places not in ([0], [len(records) - 1])
    assert played(records) == records


frames = st.builds(
    lambda asks, request_id, command, data, changes: attrs.evolve(
        (request if asks else lambda *known: response(request(known[0], known[1]), known[2]))(
            request_id, command, data
        ),
        **changes,
    ).encode(),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([5, 6, 10, 200]),
    st.binary(max_size=3),
    st.sampled_from(
        [{}, {}, {"sub_command": 0}, {"needs_response": 0}, {"padding": b"left over"}, {"needs_response": 2},
         {"request_length": -1}, {"is_response": 1, "is_request": 1}, {"reserved": 4}]
    ),
)  # fmt: skip
pieces = st.one_of(
    frames,
    frames,
    st.builds(lambda raw, cut: raw[cut:], frames, st.integers(0, 4095)),
    st.builds(lambda raw, cut: raw[:cut], frames, st.integers(0, 4095)),
    st.builds(lambda byte, size: byte * size, st.sampled_from([b"\0", b"j", b"\x01"]), st.integers(1, 9000)),
)
steps = st.one_of(
    st.tuples(st.just("receive"), pieces),
    st.tuples(st.just("receive"), pieces),
    st.tuples(st.just("send"), frames),
    st.tuples(st.just("silence"), st.just(b"")),
)


@pytest.mark.slow
@given(st.sampled_from(Role), st.lists(steps, max_size=12), st.lists(st.integers(1, 6000), max_size=6))
def test_a_recorded_session_is_played_again_exactly(
    role: Role, session: list[tuple[Literal["receive", "send", "silence"], bytes]], cuts: list[int]
) -> None:
    live = Live(role)
    for step, raw in session:
        match step:
            case "receive":
                cut = cuts[len(live.records) % len(cuts)] if cuts else len(raw)
                live.receive(raw[:cut])
                live.receive(raw[cut:])
            case "send":
                live.send(raw)
            case "silence":
                live.silence()
    recorded = live.close()
    for direction in Direction:
        assert stream(recorded, direction) == live.streams[direction]
    read = read_capture(format_capture(Capture(HEADER, tuple(recorded))))
    assert played(read.records, role) == list(read.records)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@given(data=st.data())
def test_a_golden_capture_in_other_pieces(path: Path, data: st.DataObject) -> None:
    """The replay is exact for any boundaries of reads during the recording."""
    live = Live(Role.HOST)
    for record in load(path).records:
        if record.direction is TO_GUEST:
            live.send(record.raw)
            continue
        cut = data.draw(st.integers(0, len(record.raw)))
        live.receive(record.raw[:cut])
        live.receive(record.raw[cut:])
        if isinstance(record, SkippedRecord) and record.why is not SkipReason.OUT_OF_STEP:
            live.silence()
    recorded = live.close()
    for direction in Direction:
        assert stream(recorded, direction) == stream(load(path).records, direction)
    assert played(recorded) == recorded


records = st.one_of(
    st.builds(
        lambda direction, raw, refused: FrameRecord(0, direction, Frame.decode(raw), refused),
        st.sampled_from(Direction),
        frames,
        st.sampled_from(["", "", "why"]),
    ),
    st.builds(
        SkippedRecord, st.just(0.0), st.sampled_from(Direction), pieces.map(lambda raw: raw[:4096] or b"j"),
        st.sampled_from(SkipReason),
    ),
)  # fmt: skip


@pytest.mark.slow
@given(st.sampled_from(Role), st.lists(records, max_size=8))
def test_no_capture_raises_and_no_byte_is_lost(role: Role, made: list[Record]) -> None:
    again = played(made, role)
    for direction in Direction:
        assert stream(again, direction) == stream(made, direction)


def test_answers_of_golden_captures_follow_from_their_requests() -> None:
    """Each answer, made again from only its request and the data, has the same bytes."""
    for path in FILES:
        capture = forgetful(load(path))
        answers = {
            (record.frame.request_id, record.frame.command): record.frame.data
            for record in capture.records
            if isinstance(record, FrameRecord) and record.direction is TO_GUEST and record.frame.is_response
        }

        def answer(asked: Request, answers: dict[tuple[int, int], bytes] = answers) -> bytes | None:
            return answers.get((asked.request_id, int(asked.command)))

        again = replay(capture, Connection(Role.HOST), answer)
        assert [record.raw for record in again] == [record.raw for record in capture.records], path
    assert (FOLDER / "damage.jsonl") in FILES
