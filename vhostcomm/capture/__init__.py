"""Captures: the frames of one channel in a text file that people can read and programs can compare and replay.

The package is pure: text and events in, records and text out. `format` defines and writes captures, `reading`
parses them, `record` turns a connection's events into records, `redact_capture` removes identities, and
`compare` lists the differences of two captures.
"""

from vhostcomm.capture.compare import compare
from vhostcomm.capture.format import (
    Capture,
    CaptureHeader,
    Direction,
    FrameRecord,
    Origin,
    Record,
    SkippedRecord,
    command_name,
    format_capture,
    format_header,
    format_record,
)
from vhostcomm.capture.reading import read_capture
from vhostcomm.capture.record import Recorder
from vhostcomm.capture.redact_capture import redact
from vhostcomm.capture.redact_text import Redactor

__all__ = [
    "Capture",
    "CaptureHeader",
    "Direction",
    "FrameRecord",
    "Origin",
    "Record",
    "Recorder",
    "Redactor",
    "SkippedRecord",
    "command_name",
    "compare",
    "format_capture",
    "format_header",
    "format_record",
    "read_capture",
    "redact",
]
