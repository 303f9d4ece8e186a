from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.captures.make_golden import FOLDER
from tests.captures.test_golden import load
from vchannel import Request, SkipReason
from vhostcomm.capture.format import Capture, CaptureHeader, Direction, FrameRecord, Origin, Record, SkippedRecord
from vhostcomm.capture.show import transcript

NASTY = "a\x1b[31mb\nc\u202ed\x7fe\ud800f\u2028g\x9bh"
ESCAPED = r"a\x1b[31mb\nc\u202ed\x7fe\ud800f\u2028g\x9bh"


def shown(*records: Record, producer: str = "test", provenance: str = "from a test") -> list[str]:
    header = CaptureHeader(datetime(2026, 1, 2, tzinfo=UTC), producer, Origin.RECORDED, provenance, redacted=True)
    return list(transcript(Capture(header, records)))


def test_show_prints_the_header_and_each_frame() -> None:
    asked = Request.of(5, request_id=0xC0FFEE)
    assert shown(
        FrameRecord(1.5, Direction.TO_HOST, asked.frame),
        FrameRecord(1.501, Direction.TO_GUEST, asked.reply(b"0000000000000\0").frame),
        SkippedRecord(2, Direction.TO_HOST, b"junk", SkipReason.SILENCE),
    ) == [
        "recorded, redacted, 2026-01-02 00:00:00+00:00, by test",
        "from a test",
        "",
        "     1.500  guest → asks 5 GUEST_SERIAL  [id 0xc0ffee]",
        "     1.501  host  → answers 5 GUEST_SERIAL 0000000000000  [id 0xc0ffee]",
        "     2.000  guest → 4 bytes outside any frame (silence)",
    ]


def test_control_characters_of_a_capture_are_escaped() -> None:
    frame = Request.of(17, NASTY.encode(errors="surrogatepass") + b"\0", request_id=1).frame
    lines = shown(FrameRecord(0, Direction.TO_HOST, frame, refused=NASTY), producer=NASTY, provenance=f"from {NASTY}")
    assert lines[0].endswith(f"by {ESCAPED}")
    assert lines[1] == f"from {ESCAPED}"
    assert f"REFUSED: {ESCAPED}" in lines[3]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_line_for_every_record(path: object) -> None:
    capture = load(FOLDER / str(path))
    lines = list(transcript(capture))
    assert len(lines) == 3 + len(capture.records)
    assert all(line.isprintable() for line in lines)
