"""Show a capture as a transcript for people."""

from __future__ import annotations

from collections.abc import Iterator

from vchannel import USUAL_GUEST_ID, Frame, decode_text
from vchannel.errors import shorten
from vhostcomm.capture.format import Capture, CaptureHeader, Direction, FrameRecord, Record, SkippedRecord, command_name
from vhostcomm.text import counted, printable

_ARROWS = {Direction.TO_HOST: "guest →", Direction.TO_GUEST: "host  →"}


def transcript(capture: Capture) -> Iterator[str]:
    """Yield the lines: the capture's header, then one line for each record with everything unusual about it.

    The lines are safe for a terminal: unprintable characters are escaped, because anybody may have written the capture.
    """
    yield from head(capture.header)
    yield ""
    for record in capture.records:
        yield f"{record.time:10.3f}  {_describe(record)}"


def head(header: CaptureHeader) -> tuple[str, str]:
    """Describe a capture's origin, time and producer, and then its provenance."""
    redacted = ", redacted" if header.redacted else ""
    origin = f"{header.origin.value}{redacted}, {header.when.isoformat(sep=' ')}, by {printable(header.producer)}"
    return origin, printable(header.provenance)


def quoted(value: object) -> str:
    """Shorten a value like `shorten`; bytes are quoted text too."""
    return shorten(value).removeprefix("b")


def describe_frame(raw: bytes, direction: Direction) -> str:
    """Describe a frame on one line, safe for a terminal."""
    return _describe(FrameRecord(0, direction, Frame.decode(raw)))


def _describe(record: Record) -> str:
    if isinstance(record, SkippedRecord):
        return f"{_ARROWS[record.direction]} {counted(len(record.raw), 'byte')} outside any frame ({record.why.value})"
    frame = record.frame
    kind = "asks" if frame.needs_response else "tells"
    words = [
        "answers" if frame.is_response else kind,
        f"{frame.command} {command_name(record) or '(unknown)'}",
    ]
    if frame.data:
        text = decode_text(frame.data)
        words.append(text if text.isprintable() and frame.data == text.encode() + b"\0" else quoted(frame.data))
    remarks = [f"id {frame.request_id:#x}"]
    if frame.guest_id != USUAL_GUEST_ID:
        remarks.append(f"guest id {frame.guest_id}")
    if any(frame.guest_uuid):
        remarks.append(f"uuid {frame.guest_uuid.hex()}")
    if (frame.sub_command, frame.reserved) != (1, 0):
        remarks.append(f"sub-command {frame.sub_command}, reserved {frame.reserved}")
    if frame.padding:
        remarks.append(f"{counted(len(frame.padding), 'byte')} of padding")
    if record.refused:
        remarks.append(f"REFUSED: {printable(record.refused)}")
    return f"{_ARROWS[record.direction]} {' '.join(words)}  [{', '.join(remarks)}]"
