"""Redact captures, so that they can be published.

Placeholders replace serial numbers, MAC addresses, UUIDs and IP addresses in text: see `Redactor`. Other text of a
guest becomes `x`: see `guest_data`. In binary data only the positions of NULs stay. Times stay. Users read a redacted
capture before they publish it, because no search for secrets is complete.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from vchannel import DATA_SIZE, HEADER_SIZE, USUAL_GUEST_ID, Frame, GuestCommand, HostCommand, Kind, refusal
from vhostcomm.capture.format import (
    Capture,
    Direction,
    FrameRecord,
    Record,
    SkippedRecord,
    asked_by_guest,
    text_of,
)
from vhostcomm.capture.guest_text import guest_data
from vhostcomm.capture.placeholders import NUMBER_LIMIT
from vhostcomm.capture.redact_text import Redactor, mask

_SERIAL_ANSWERS: Final = frozenset({HostCommand.GUEST_SERIAL, HostCommand.HOST_SERIAL})
_DANGEROUS: Final = frozenset(command for command in GuestCommand if command.dangerous)
_BLANK: Final = b"REDACTED\0"

_PUBLIC_GUEST_IDS: Final = frozenset({0, 3_000_000, USUAL_GUEST_ID})
"""The guest ids that all guests use."""

_FLAGS: Final = ("is_request", "is_response", "needs_response")
_LENGTHS: Final = ("request_length", "response_length")


def redact(capture: Capture, *, keep_text: bool = False) -> Capture:
    """Return a copy of a capture without identities. The lengths in the headers match the new data.

    Besides the text of the data, these change: request ids and unusual guest ids become small numbers, binary UUIDs
    become placeholders, and the data of a dangerous command is blanked. Padding, skipped bytes, refused headers and
    fields outside their known ranges are masked. With `keep_text`, a guest's text stays, except its secrets.
    """
    redactor = Redactor()
    header_texts = (capture.header.producer, capture.header.provenance)
    for text in header_texts:
        redactor.learn(text)
    for record in capture.records:
        if isinstance(record, FrameRecord) and _is_believed(record):
            _learn(record, redactor)
    producer, provenance = map(redactor.text, header_texts)
    header = attrs.evolve(capture.header, redacted=True, producer=producer, provenance=provenance)
    return Capture(header, tuple(_redact_record(record, redactor, keep_text) for record in capture.records))


def _is_believed(record: FrameRecord) -> bool:
    return not record.refused and refusal(record.raw[:HEADER_SIZE], convincing=False) is None


def _learn(record: FrameRecord, redactor: Redactor) -> None:
    frame = record.frame
    redactor.learn_number("request_id", frame.request_id)
    redactor.learn_number("guest_id", frame.guest_id)
    redactor.learn_uuid(frame.guest_uuid)
    if (text := text_of(frame.data)) is not None:
        redactor.learn(text, serial=_is_serial(record))


def _is_serial(record: FrameRecord) -> bool:
    """Return whether the data is a serial number in a host's answer. A guest's command 5 has another meaning."""
    answers = record.direction is Direction.TO_GUEST and record.frame.is_response == 1
    return answers and record.frame.command in _SERIAL_ANSWERS


def _is_integer(record: FrameRecord) -> bool:
    """Return whether the protocol defines the guest's data as an integer."""
    namespace = HostCommand if asked_by_guest(record) else GuestCommand
    command = next((member for member in namespace if member == record.frame.command), None)
    return command is not None and (command.asks if record.frame.is_request else command.answers) is Kind.INTEGER


def _redact_record(record: Record, redactor: Redactor, keep_text: bool) -> Record:
    if isinstance(record, SkippedRecord):
        return attrs.evolve(record, raw=mask(record.raw))
    if not _is_believed(record):
        return _redact_refused(record)
    frame = record.frame
    data = _redact_data(record, redactor, keep_text)
    if len(data) + len(frame.padding) > DATA_SIZE:
        data = mask(frame.data)
    guest_id = frame.guest_id
    if guest_id not in _PUBLIC_GUEST_IDS:
        guest_id = redactor.number("guest_id", guest_id)
    changes: dict[str, Any] = {
        "request_id": redactor.number("request_id", frame.request_id),
        "guest_uuid": redactor.uuid(frame.guest_uuid),
        "guest_id": guest_id,
        "command": frame.command if -1 <= frame.command < NUMBER_LIMIT else _mask_number(frame.command),
        "sub_command": frame.sub_command if 0 <= frame.sub_command <= 0xFF else _mask_number(frame.sub_command),
        "reserved": _mask_number(frame.reserved),
        "request_length" if frame.is_request else "response_length": len(data),
        "data": data,
        "padding": mask(frame.padding),
    }
    return attrs.evolve(record, frame=attrs.evolve(frame, **changes))


def _redact_data(record: FrameRecord, redactor: Redactor, keep_text: bool) -> bytes:
    data = record.frame.data
    if data and record.frame.command in _DANGEROUS and not asked_by_guest(record):
        return _BLANK
    if record.direction is Direction.TO_HOST and not keep_text:
        return guest_data(data, _is_integer(record), redactor)
    return redactor.data(data, serial=_is_serial(record))


def _redact_refused(record: FrameRecord) -> FrameRecord:
    """Mask a refused header, whose fields may be pieces of any text. Only the usual values of each field stay.

    An invalid field stays invalid, so the new header is refused for the same field.
    """
    frame = record.frame
    usual: dict[str, Any] = {name: value for name in _FLAGS if (value := getattr(frame, name)) in (0, 1)}
    usual |= {name: 0 for name in _LENGTHS if 0 <= getattr(frame, name) <= DATA_SIZE}
    if 1 <= frame.sub_command <= 0xFF:
        usual["sub_command"] = 1
    masked = attrs.evolve(Frame.decode(mask(record.raw)), **usual).encode()
    why = refusal(masked[:HEADER_SIZE], convincing=True)
    return attrs.evolve(
        record, frame=Frame.decode(masked), refused=str(why) if why else "for a reason that isn't shown"
    )


def _mask_number(value: int) -> int:
    return int.from_bytes(mask(value.to_bytes(4, "little", signed=True)), "little")
