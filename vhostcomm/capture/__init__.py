"""Captures: the frames of one channel in a text file that people can read and programs can compare and replay.

What reads, writes or changes a capture's text belongs here. Pure: events and text go in, records and text come out.
Sockets and files are for those who record and replay.
"""

from vhostcomm.capture.format import format_record
from vhostcomm.capture.record import Recorder

__all__ = ["Recorder", "format_record"]
