"""Format guests, answers and health as JSON. A guest's texts are untrusted data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, assert_never

import attrs

from vchannel import (
    DATA_SIZE,
    NO_NUL,
    Command,
    GuestCommand,
    HostCommand,
    Kind,
    Known,
    PayloadError,
    Response,
    decode_json,
    decode_text,
)
from vhostcomm.channel.guest import OTHER, Guest
from vhostcomm.channel.recordings import LiveRecording
from vhostcomm.cluster.records import View
from vhostcomm.guest.model import State
from vhostcomm.text import escape

ESCAPED_MAX: Final = DATA_SIZE * 10
"""Maximum characters of the longest answer if all of them are escaped."""


def encode(value: Any) -> bytes:
    """Return a document as the bytes of JSON."""
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def when(seconds: float | None) -> str | None:
    """Format a time as ISO 8601, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def command_name(number: int) -> str:
    """Return the name of a guest's command."""
    if number == OTHER:
        return "other"
    try:
        return HostCommand(number).name.lower()
    except ValueError:
        return str(int(number))


def summary(guest: Guest) -> dict[str, Any]:
    """Summarize a guest for a list."""
    return {
        "name": guest.name,
        "state": guest.state.value,
        "since": when(guest.model.entered.wall),
        "sock": str(guest.address),
        "serial": guest.identity.serial,
        "served_serial": served.text if (served := guest.answered.get(HostCommand.GUEST_SERIAL)) else None,
        "address": guest.information.address if guest.information else None,
        "link": link(guest),
        "last_frame": when(guest.last_frame),
        "stop": stop(guest),
        "frozen_until": when(guest.frozen_until),
        "paused": pause(guest),
        "thaw_owed": thaw_owed(guest),
        "problem": problem(guest),
    }


def full(guest: Guest) -> dict[str, Any]:
    """Return all knowledge about a guest."""
    return summary(guest) | {
        "identity": {"host": attrs.asdict(guest.host), "guest": attrs.asdict(guest.identity)},
        "connections": guest.connections,
        "starts_seen": guest.boots,
        "reported_time": guest.reported_time,
        "last_end": guest.last_end.why if guest.last_end else "",
        "requests": {command_name(number): count for number, count in guest.counts.items()},
        "calls": [
            {"command": command, "outcome": outcome, "count": count}
            for (command, outcome), count in guest.calls.items()
        ],
        "answered": {
            command_name(number): {"answer": each.text, "when": when(each.when)}
            for number, each in guest.answered.items()
        },
        "counts": {
            "refused_frames": guest.refused_frames,
            "skipped_bytes": guest.skipped_bytes,
            "dropped_answers": guest.dropped_answers,
            "throttled": guest.throttled,
        },
        "information": information(guest),
    }


def stop(guest: Guest) -> dict[str, Any] | None:
    """Return the last stop of a guest: its client, kind and time."""
    if guest.model.stop is None:
        return None
    return {"by": escape(guest.model.stop.by), "how": guest.model.stop.how, "when": when(guest.model.stop.asked.wall)}


def pause(guest: Guest) -> dict[str, Any] | None:
    """Return the pause of a guest's machine: its cause, remedy and beginning."""
    if guest.model.pause is None:
        return None
    cause, remedy = escape(guest.model.pause.cause), escape(guest.model.pause.remedy)
    return {"cause": cause, "remedy": remedy, "since": when(guest.model.pause.since.wall)}


def recording(found: LiveRecording | None) -> dict[str, Any] | None:
    """Return the recording of a guest that a client started."""
    if found is None:
        return None
    file, ended = str(found.recording.path), found.recording.ended
    return {"file": file, "since": when(found.started), "active": found.active and not ended, "ended": ended or None}


def thaw_owed(guest: Guest) -> dict[str, Any] | None:
    """Return the freeze that a guest has to be thawed from: its client, its time and its end."""
    if guest.debt is None:
        return None
    debt = guest.debt
    return {"by": escape(debt.by), "since": when(debt.since.wall), "until": when(debt.until.wall)}


def guests(served: Iterable[Guest], view: View | None) -> dict[str, Any]:
    """Serialize the guests of a daemon, and those of other hosts of its cluster."""
    return {"guests": [summary(each) for each in served], "cluster": _cluster(view)}


def _cluster(view: View | None) -> dict[str, Any] | None:
    """Serialize the guests that other hosts have; times are on those hosts' clocks."""
    if view is None:
        return None
    elsewhere = [
        {
            "name": each.guest,
            "host": each.host,
            "state": each.state.value,
            "since": when(each.since),
            "address": each.address,
            "frozen_until": when(each.frozen_until),
        }
        for each in sorted(view.serving.values(), key=lambda each: (each.guest, each.host))
        if each.host != view.host
    ]
    return {"host": view.host, "warnings": view.warnings, "elsewhere": elsewhere}


def link(guest: Guest) -> str | None:
    """Return the address of a guest's DSM; None if it isn't known, or if browsers reject it (link-local)."""
    if guest.information is None or not (address := guest.information.address) or "%" in address:
        return None
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/" if (port := guest.information.http_port) else None


def information(guest: Guest) -> dict[str, Any] | None:
    """Return the last report of a guest about itself."""
    if guest.information is None:
        return None
    return {
        "when": when(guest.information.received.wall),
        "address": guest.information.address,
        "http_port": guest.information.http_port,
        "link": link(guest),
        "answer": data(GuestCommand.GET_INFORMATION, guest.information.data),
    }


def problem(guest: Guest) -> str | None:
    """Return why a guest isn't well; None if it is."""
    match guest.state:
        case State.ABSENT:
            return f"QEMU is not connected to {guest.address}" + (guest.unreachable and f": {guest.unreachable}")
        case State.CONNECTED:
            return "QEMU is connected, but the guest has shown no sign of life yet"
        case State.READY:
            return _problem_of_ready(guest)
        case State.SILENT:
            return f"the guest does not answer the question for its address (since {when(guest.model.entered.wall)})"
        case State.PAUSED:
            assert guest.model.pause is not None
            return f"the machine is paused: {escape(guest.model.pause.cause)}; {escape(guest.model.pause.remedy)}"
    assert_never(guest.state)


def _problem_of_ready(guest: Guest) -> str | None:
    report = guest.information
    if report is None or report.received.at < guest.model.entered.at:
        return None
    if report.problem:
        return f"the guest's information can't be read: {escape(report.problem)}"
    return "the guest is up, but has no address yet" if report.address is None else None


def called(guest: Guest, command: Command, response: Response, took: float) -> dict[str, Any]:
    """Return the answer of a call."""
    return asked(guest, command) | {
        "seconds": round(took, 6),
        "answer": data(command, response.data, response.problem),
    }


def asked(guest: Guest, command: Command) -> dict[str, Any]:
    """Return the guest, the command and the evidence for the command."""
    known = command.known if isinstance(command, GuestCommand) else Known.UNKNOWN
    name = command.name.lower() if isinstance(command, GuestCommand) else None
    return {"guest": guest.name, "command": {"number": int(command), "name": name, "known": known.value}}


def data(command: Command, raw: bytes, odd: PayloadError | None = None) -> dict[str, Any]:
    """Return a guest's answer: as text, as JSON if possible, and what is wrong with it."""
    text = decode_text(raw)
    kind = command.answers if isinstance(command, GuestCommand) else Kind.UNKNOWN
    trouble = str(odd) if odd and odd.why != NO_NUL else ""
    document: Any = None
    if raw and (kind is Kind.JSON or text.lstrip()[:1] in {"{", "["}):
        try:
            document = decode_json(raw)
        except PayloadError as error:
            trouble = trouble or str(error)
    if document is None and not text.isprintable() and not trouble:
        trouble = "it contains control characters, which are escaped here"
    return {
        "bytes": len(raw),
        "text": escape(text, ESCAPED_MAX),
        "json": document,
        "problem": escape(trouble) if trouble else None,
    }


def health(guests: dict[str, Guest], not_reloaded: str, view: View | None) -> dict[str, Any]:
    """Return whether all guests are healthy and the last reload was accepted, as `healthy`, and the reasons if not.

    Problems of a cluster are only warnings: guests are still answered.
    """
    unhealthy = {name: why for name, guest in guests.items() if (why := problem(guest))}
    return {
        "healthy": not unhealthy and not not_reloaded,
        "guests": len(guests),
        "unhealthy": unhealthy,
        "not_reloaded": escape(not_reloaded, ESCAPED_MAX) or None,
        "warnings": view.warnings if view else [],
    }
