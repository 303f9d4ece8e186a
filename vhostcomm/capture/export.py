"""Export a capture as pcapng for Wireshark, one packet for each record.

The link type is "upper PDU". Such a packet starts with the name of its dissector, so Wireshark needs no settings
once ``protocol/wireshark/vchannel.lua`` is installed. Between that name and the record's bytes is a list of texts
with the facts that the bytes lack:

    tag, length (16 bits each, big-endian), text      any number of them, see `_TAGS`
    0, 0                                              end of the list

No other module imports this one at its start, because only the export needs `pcapng`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from pcapng import FileWriter, blocks

from vhostcomm import __version__
from vhostcomm.capture.format import Capture, Direction, FrameRecord, Record
from vhostcomm.capture.show import head
from vhostcomm.errors import CaptureError
from vhostcomm.text import printable

LINKTYPE_UPPER_PDU: Final = 252
DISSECTOR: Final = b"vchannel_record\0"
"""The dissector's name, padded to a multiple of four bytes."""

COMMENT_LIMIT: Final = 65_000
"""Maximum bytes of one comment: an option's length has 16 bits."""

_TIMES: Final = range(1 << 64)
"""Times that a packet can have, in microseconds since 1970: pcapng's default unit, and a capture's resolution."""
_FLAGS: Final = {Direction.TO_HOST: 1, Direction.TO_GUEST: 2}
"""Inbound and outbound, as seen by the host, which makes the captures."""

_DISSECTOR_TAG: Final = 12
_END: Final = bytes(4)
_TAGS: Final = {"channel": 1, "refused": 2, "assumed": 3, "outside any frame": 4}


def write_pcapng(capture: Capture, stream: BinaryIO, path: str = "capture") -> None:
    """Write a capture as one section with one interface.

    Args:
        capture: the section's comment has its provenance. A packet's comment has its record's remarks:
            refused, assumed, outside any frame.
        stream: the output; stays open.
        path: the capture's file, for errors. Its stem names the interface, which distinguishes guests in merged files.

    Raises:
        CaptureError: a time is out of pcapng's range; nothing was written.
        OSError: from the stream.
    """
    times = list(times_of(capture, path))
    name = printable(Path(path).stem)
    channel = _cut(f"{name}, {capture.header.when.isoformat(sep=' ')}")
    section = blocks.SectionHeader(
        options={"opt_comment": _section_comments(capture), "shb_userappl": f"vhostcomm {__version__}"}
    )
    interface = section.new_member(
        blocks.InterfaceDescription,
        link_type=LINKTYPE_UPPER_PDU,
        options={
            "if_name": _cut(name),
            "if_description": "vchannel of one guest, as its host sees it",
        },
    )
    writer = FileWriter(stream, section)
    for time, record in zip(times, capture.records, strict=True):
        options: dict[str, object] = {"epb_flags": [_FLAGS[record.direction]]}
        remarks = _remarks(record)
        if remarks:
            options["opt_comment"] = [f"{what}: {text}" for what, text in remarks.items()]
        payload = _upper_pdu({"channel": channel, **remarks}, record.raw)
        packet = section.new_member(
            blocks.EnhancedPacket,
            interface_id=interface.interface_id,
            timestamp_high=time >> 32,
            timestamp_low=time & 0xFFFFFFFF,
            packet_len=len(payload),
            packet_data=payload,
            options=options,
        )
        writer.write_block(packet)


def times_of(capture: Capture, path: str) -> Iterator[int]:
    """Yield the time of each record in microseconds since 1970.

    Raises:
        CaptureError: a time is out of pcapng's range.
    """
    start = (capture.header.when - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    for number, record in enumerate(capture.records, 2):
        time = start + round(record.time * 1_000_000)
        if time not in _TIMES:
            raise CaptureError(
                path,
                number,
                f"{record.time} s after {capture.header.when.isoformat()} is not a time in pcapng, where "
                "time begins in 1970: correct 'when' in the first line, or 't'",
            )
        yield time


def _section_comments(capture: Capture) -> list[str]:
    comments = [*head(capture.header)]
    if capture.cut_off:
        comments.append("the capture's last line is cut off and left out")
    return [_cut(comment) for comment in comments if comment]


def _remarks(record: Record) -> dict[str, str]:
    if not isinstance(record, FrameRecord):
        return {"outside any frame": record.why.value}
    found = {"refused": printable(record.refused), "assumed": ", ".join(record.assumed)}
    return {what: _cut(text) for what, text in found.items() if text}


def _cut(text: str) -> str:
    whole = text.encode()
    return text if len(whole) <= COMMENT_LIMIT else whole[:COMMENT_LIMIT].decode(errors="ignore") + " …"


def _upper_pdu(texts: dict[str, str], raw: bytes) -> bytes:
    head = [_tagged(_DISSECTOR_TAG, DISSECTOR), _END]
    head += [_tagged(_TAGS[what], text.encode()) for what, text in texts.items()]
    return b"".join((*head, _END, raw))


def _tagged(tag: int, value: bytes) -> bytes:
    return struct.pack(">HH", tag, len(value)) + value
