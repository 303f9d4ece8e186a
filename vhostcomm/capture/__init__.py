"""Captures: what went over one channel, as a text file that can be read, compared and played again.

Everything here is pure: text and events in, records and text out. `format` defines what a capture holds
and how it is written, `reading` parses one, `record` makes records of a connection's events,
`redact_capture` removes identities, `compare` finds the difference between two captures.
"""

from vhostcomm.capture.compare import Difference, compare
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
    "Difference",
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
