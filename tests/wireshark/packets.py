"""Packets that our export never writes: a PDU of any size, and TCP."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable

from attrs import frozen
from pcapng import FileWriter, blocks

RAW_IP = 101
UPPER_PDU = 252
HOST_PORT, GUEST_PORT = 12345, 40000


@frozen
class Segment:
    """Bytes of one TCP segment; `to_host` is its direction."""

    to_host: bool
    data: bytes


def upper_pdus(dissector: bytes, packets: Iterable[bytes]) -> bytes:
    """Return packets for a dissector, whose name has up to 15 letters."""
    head = struct.pack(">HH16sHH", 12, 16, dissector, 0, 0)
    return _file(UPPER_PDU, (head + packet for packet in packets))


def tcp(segments: Iterable[Segment], mss: int = 1448) -> bytes:
    """Return a capture that begins in the middle of a connection, without a handshake."""
    sent = {True: 1000, False: 5000}
    packets = []
    for segment in segments:
        for start in range(0, len(segment.data), mss):
            part = segment.data[start : start + mss]
            packets.append(_packet(segment.to_host, sent[segment.to_host], sent[not segment.to_host], part))
            sent[segment.to_host] += len(part)
    return _file(RAW_IP, packets)


def _packet(to_host: bool, sequence: int, acknowledged: int, data: bytes) -> bytes:
    ports = (GUEST_PORT, HOST_PORT) if to_host else (HOST_PORT, GUEST_PORT)
    tcp_header = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, 0x18, 65535, 0, 0)
    guest, host = bytes([192, 0, 2, 2]), bytes([192, 0, 2, 1])
    addresses = guest + host if to_host else host + guest
    ip_header = struct.pack(">BBHHHBBH8s", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0, addresses)
    return ip_header + tcp_header + data


def _file(link_type: int, packets: Iterable[bytes]) -> bytes:
    stream = io.BytesIO()
    section = blocks.SectionHeader()
    interface = section.new_member(blocks.InterfaceDescription, link_type=link_type)
    writer = FileWriter(stream, section)
    for number, packet in enumerate(packets):
        writer.write_block(
            section.new_member(
                blocks.EnhancedPacket,
                interface_id=interface.interface_id,
                timestamp_low=number,
                packet_len=len(packet),
                packet_data=packet,
                options={"epb_flags": 1} if link_type == UPPER_PDU else {},
            )
        )
    return stream.getvalue()
