"""Captures: the frames of one channel in a text file that people can read and programs can compare and replay.

The package is pure: text and events in, records and text out. `format` defines and writes captures, `reading`
parses them, `record` turns a connection's events into records, `redact_capture` removes identities, and
`compare` lists the differences of two captures.
"""

from vhostcomm.capture.format import format_record
from vhostcomm.capture.record import Recorder

__all__ = ["Recorder", "format_record"]
