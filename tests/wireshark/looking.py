"""Captures dissected by tshark."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.captures.make_golden import FOLDER
from tests.serving import TIMEOUT
from vchannel import HEADER_FIELDS, Frame
from vhostcomm.capture.export import write_pcapng
from vhostcomm.capture.format import Capture, CaptureHeader, Direction, FrameRecord, Origin, Record

DISSECTOR: Final = FOLDER.parent / "protocol/wireshark/vchannel.lua"
START: Final = datetime(2026, 1, 2, tzinfo=UTC)

EXPERTS: Final = (
    "flag", "both", "length", "cut", "skipped", "refused", "sub_command", "reserved", "command", "direction",
    "other_length", "padding", "nul", "integer", "unsolicited", "unanswered", "asked_again", "same_id",
)  # fmt: skip
FIELDS: Final = (
    "frame.number", "frame.time_epoch", "frame.comment", "frame.interface_name", "_ws.col.Info", "_ws.col.Source",
    "_ws.malformed", "_ws.lua.error",
    *(f"vchannel.{name}" for name in (
        "channel", "direction", *HEADER_FIELDS, "host_command", "guest_command", "data", "text", "padding", "response_in",
        "response_to", "asked_before", "time", "refused", "assumed", "skipped", "why_skipped",
    )),
    *(f"vchannel.expert.{name}" for name in EXPERTS),
    "json.key",
)  # fmt: skip

_COLUMNS: Final = {"_ws.col.info": "_ws.col.Info", "_ws.col.def_src": "_ws.col.Source"}
"""The names that tshark 4.4 prints for requested columns."""

Packet = dict[str, list[str]]
"""The values of a packet's fields, by name."""


_RIGHTS: Final = "+dac_override,+net_raw,+net_admin"
"""The capabilities of root to read the tests' files and to capture."""

UNPRIVILEGED: Final = (
    [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        f"--inh-caps={_RIGHTS}",
        f"--ambient-caps={_RIGHTS}",
    ]
    if os.geteuid() == 0
    else []
)
"""The words that run tshark as a user other than root: as root, tshark 4.4 ignores Lua scripts."""


def command(*words: str | Path) -> list[str]:
    return [*UNPRIVILEGED, "tshark", "-X", f"lua_script:{DISSECTOR}", *map(str, words)]


def environment(home: Path) -> dict[str, str]:
    """Return an environment with an empty home, because the tester's home may have the dissector as a plugin."""
    return os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def tshark(home: Path, *words: str | Path) -> str:
    """Run tshark and return its output; a warning is a failure."""
    ended = subprocess.run(
        command(*words), env=environment(home), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def look(path: Path, *words: str) -> list[Packet]:
    """Return every packet, dissected in two passes as in Wireshark."""
    fields = [word for field in FIELDS for word in ("-e", field)]
    packets = json.loads(tshark(path.parent, "-2", "-r", path, "-T", "json", *fields, *words))
    layers = [packet["_source"]["layers"] for packet in packets]
    found: list[Packet] = [{_COLUMNS.get(name, name): values for name, values in each.items()} for each in layers]
    assert not any("_ws.lua.error" in packet for packet in found)
    return found


def exported(path: Path, capture: Capture) -> Path:
    with path.open("wb") as stream:
        write_pcapng(capture, stream, str(path))
    return path


def made(*records: Record) -> Capture:
    return Capture(CaptureHeader(START, "test", Origin.RECONSTRUCTED, "made for a test"), records)


def frames(*way_and_frame: tuple[Direction, Frame]) -> Iterable[FrameRecord]:
    """Return records of frames, one each tenth of a second."""
    for number, (direction, frame) in enumerate(way_and_frame):
        yield FrameRecord(number / 10, direction, frame)


def experts(packet: Packet) -> set[str]:
    return {name for name in EXPERTS if f"vchannel.expert.{name}" in packet}
